"""What a model can do with pictures it has not seen: name them, group them, and draw them.

The model is asked in words and judged from outside: answers by the rule of `naming`, drawings by a
classifier that learned from real pictures. The same pictures, prompts and seeds come up every time.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

from PIL import Image

from mmgen.data.kinds import GROUP_FORMS
from mmgen.errors import DataError
from mmgen.evaluate.classifier import Classifier, ClassifierConfig, Ranks, trained_classifier
from mmgen.evaluate.naming import ConceptNames, words
from mmgen.evaluate.pack import EmojiRow
from mmgen.evaluate.progress import Progress
from mmgen.evaluate.report import table, write_text
from mmgen.evaluate.tokenizer import (
    TokenizerReport,
    at_nearest_size,
    evaluate_tokenizer,
    reconstruct,
)
from mmgen.pictures import save_png, sheet, to_picture
from mmgen.visual_tokenizer import AbstractVisualTokenizer

__all__ = [
    "CaptionScores",
    "DrawingScores",
    "ModelEvaluationConfig",
    "ModelReport",
    "Subject",
    "evaluate_model",
    "pairs_to_draw",
]

SHEET_COLUMNS = 10
SHEET_PICTURES = 100


class Subject(Protocol):
    """The model that is measured: words to pictures and pictures to words, many at a time."""

    def draw(
        self, prompts: Sequence[str], *, seeds: Sequence[int], guidance_scale: float
    ) -> list[Image.Image]:
        """Return one picture per prompt."""

    def ask(self, pictures: Sequence[Image.Image], question: str) -> list[str]:
        """Return the likeliest answer about each picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEvaluationConfig:
    """What is asked of a model, and how often."""

    guidance_scale: float
    """Scale of the guided drawings; the others are drawn with 1."""
    group_forms: Mapping[str, str] = field(default_factory=lambda: GROUP_FORMS)
    """How each group of the pack is called in answers."""
    name_question: str = "what is this?"
    """Asked of `val_style` pictures."""
    group_question: str = "what kind of thing is this?"
    """Asked of `val` pictures."""
    num_pairs: int = 200
    """(Concept, style) pairs drawn from each of `train` and `val_style`."""
    limit: int | None = None
    """At most so many pictures in every part, for a quick look."""
    batch_size: int = 16
    """Requests given to the model at once."""
    seed: int = 0
    """Chooses the pairs; the drawing of pair i has seed `seed + i`."""
    classifier: ClassifierConfig = field(default_factory=ClassifierConfig)
    """The judge of drawings."""

    def __post_init__(self) -> None:
        counts = (self.num_pairs, self.batch_size, self.limit or 1)
        if min(counts) < 1:
            raise ValueError(f"num_pairs, batch_size and limit must be positive, got {counts}")


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionScores:
    """How many answers in words were right."""

    num_named: int
    """`val_style` pictures asked about."""
    named: float
    """Share of them whose concept the answer names."""
    num_grouped: int
    """`val` pictures asked about."""
    grouped: float
    """Share of them whose group the answer gives."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawingScores:
    """How many drawings of one kind of pair were recognised, and how many could have been."""

    split: str
    """Where the pairs come from."""
    guidance_scale: float
    """Scale of the guided drawings."""
    guided: Ranks
    """Drawn with guidance."""
    unguided: Ranks
    """Drawn without."""
    real: Ranks
    """The pack's own pictures of the same pairs: what the judge can recognise at all."""
    reconstructed: Ranks
    """The same pictures through the tokenizer: what a perfect model could reach."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelReport:
    """What was measured of a model."""

    tokenizer: TokenizerReport
    """Its tokenizer on `val` pictures."""
    captions: CaptionScores
    """Words from pictures."""
    drawings: tuple[DrawingScores, ...]
    """Pictures from words."""
    judge: Ranks
    """The classifier on every real `val_style` picture."""

    def as_json(self) -> dict[str, object]:
        """Return the report as plain values."""
        return asdict(self)

    def markdown(self) -> str:
        """Return the report as tables."""
        said = self.captions
        rows = [
            [f"{drawing.split}, {label}", *_shares(ranks)]
            for drawing in self.drawings
            for label, ranks in (
                (f"guided {drawing.guidance_scale:g}", drawing.guided),
                ("unguided", drawing.unguided),
                ("real pictures", drawing.real),
                ("their reconstructions", drawing.reconstructed),
            )
        ]
        rows.append(["all real val_style pictures", *_shares(self.judge)])
        answers = [
            ["concept named (val_style)", str(said.num_named), f"{said.named:.1%}"],
            ["group right (val)", str(said.num_grouped), f"{said.grouped:.1%}"],
        ]
        return "\n".join(
            [
                f"## Reconstruction (val)\n\n{self.tokenizer.markdown()}",
                f"## Words from pictures\n\n{table(['', 'pictures', 'right'], answers)}\n",
                "## Pictures from words, recognised by the classifier\n",
                f"{table(['', 'pictures', 'top-1', 'top-5'], rows)}\n",
            ]
        )


def evaluate_model(
    subject: Subject,
    tokenizer: AbstractVisualTokenizer,
    tokenizer_name: str,
    rows: Sequence[EmojiRow],
    directory: Path,
    config: ModelEvaluationConfig,
    *,
    progress: Progress,
) -> ModelReport:
    """Measure a model on a pack; sheets, answers and the classifier's weights go to `directory`."""
    splits = {
        split: [row for row in rows if row.split == split]
        for split in ("train", "val", "val_style")
    }
    for split, members in splits.items():
        if not members:
            raise DataError(f"the pack has no rows of split {split}; a model is measured on all 3")
    unseen = [row.open() for row in splits["val"][: config.limit]]
    tokenizer_report, reconstructions = evaluate_tokenizer(
        tokenizer, tokenizer_name, unseen, progress=progress
    )
    save_png(reconstructions, directory / "reconstructions.png")
    captions = _captions(subject, rows, splits, directory, config, progress)
    judge = trained_classifier(splits["train"], config.classifier, directory, progress=progress)
    drawings = tuple(
        _drawings(subject, tokenizer, judge, splits[split], directory, config, progress)
        for split in ("train", "val_style")
    )
    real = [row.open() for row in splits["val_style"]]
    return ModelReport(
        tokenizer=tokenizer_report,
        captions=captions,
        drawings=drawings,
        judge=judge.ranks(real, [row.concept for row in splits["val_style"]]),
    )


def pairs_to_draw(rows: Sequence[EmojiRow], num: int, *, seed: int) -> list[EmojiRow]:
    """Return one row for each of `num` (concept, style) pairs, the plainest, in a fixed order."""
    plainest: dict[tuple[str, str], EmojiRow] = {}
    for row in sorted(rows, key=lambda row: (row.tone, row.id)):
        plainest.setdefault((row.concept, row.style), row)
    pairs = sorted(plainest)
    chosen = random.Random(seed).sample(pairs, min(num, len(pairs)))
    return [plainest[pair] for pair in chosen]


def _captions(
    subject: Subject,
    rows: Sequence[EmojiRow],
    splits: Mapping[str, Sequence[EmojiRow]],
    directory: Path,
    config: ModelEvaluationConfig,
    progress: Progress,
) -> CaptionScores:
    names = ConceptNames(rows)

    def is_named(row: EmojiRow, answer: str) -> bool:
        return row.concept in names.named(answer)

    def is_grouped(row: EmojiRow, answer: str) -> bool:
        return names_group(answer, row.group, config.group_forms)

    lines: list[str] = []
    shares: list[float] = []
    asked = (
        ("val_style", config.name_question, is_named),
        ("val", config.group_question, is_grouped),
    )
    for split, question, is_right in asked:
        chosen = list(splits[split][: config.limit])
        verdicts = _answers(subject, chosen, question, is_right, lines, config, progress)
        shares.append(sum(verdicts) / len(verdicts))
    write_text(directory / "answers.jsonl", "".join(lines))
    return CaptionScores(
        num_named=len(splits["val_style"][: config.limit]),
        named=shares[0],
        num_grouped=len(splits["val"][: config.limit]),
        grouped=shares[1],
    )


def names_group(answer: str, group: str, group_forms: Mapping[str, str]) -> bool:
    """Return whether the first group named in an answer is this one."""
    said = f" {' '.join(words(answer))} "
    places = {key: said.find(f" {' '.join(words(form))} ") for key, form in group_forms.items()}
    named = {key: place for key, place in places.items() if place >= 0}
    return bool(named) and min(named, key=lambda key: named[key]) == group


def _answers(
    subject: Subject,
    rows: Sequence[EmojiRow],
    question: str,
    is_right: Callable[[EmojiRow, str], bool],
    lines: list[str],
    config: ModelEvaluationConfig,
    progress: Progress,
) -> list[bool]:
    verdicts: list[bool] = []
    for start in progress(range(0, len(rows), config.batch_size), question):
        batch = rows[start : start + config.batch_size]
        answers = subject.ask([row.open() for row in batch], question)
        for row, answer in zip(batch, answers, strict=True):
            verdicts.append(is_right(row, answer))
            record = {
                "id": row.id,
                "concept": row.concept,
                "group": row.group,
                "question": question,
                "answer": answer,
                "is_right": verdicts[-1],
            }
            lines.append(json.dumps(record, ensure_ascii=False) + "\n")
    return verdicts


def _drawings(
    subject: Subject,
    tokenizer: AbstractVisualTokenizer,
    judge: Classifier,
    rows: Sequence[EmojiRow],
    directory: Path,
    config: ModelEvaluationConfig,
    progress: Progress,
) -> DrawingScores:
    num = min(config.num_pairs, config.limit or config.num_pairs)
    chosen = pairs_to_draw(rows, num, seed=config.seed)
    concepts = [row.concept for row in chosen]
    split = chosen[0].split
    drawn: dict[str, Ranks] = {}
    for kind, scale in (("guided", config.guidance_scale), ("unguided", 1.0)):
        pictures: list[Image.Image] = []
        label = f"drawing {split} pairs, {kind}"
        for start in progress(range(0, len(chosen), config.batch_size), label):
            batch = chosen[start : start + config.batch_size]
            seeds = [config.seed + start + index for index in range(len(batch))]
            prompts = [row.caption_short for row in batch]
            pictures += subject.draw(prompts, seeds=seeds, guidance_scale=scale)
        labels = [
            f"{'+' if guess[0] == row.concept else '-'} {row.caption_short}"
            for guess, row in zip(judge.guesses(pictures), chosen, strict=True)
        ]
        shown = sheet(pictures[:SHEET_PICTURES], labels[:SHEET_PICTURES], SHEET_COLUMNS)
        save_png(shown, directory / f"drawn-{split}-{kind}.png")
        drawn[kind] = judge.ranks(pictures, concepts)
    real = [row.open() for row in chosen]
    arrays = [at_nearest_size(picture, tokenizer) for picture in real]
    _, decoded = reconstruct(tokenizer, arrays, progress=progress)
    return DrawingScores(
        split=split,
        guidance_scale=config.guidance_scale,
        guided=drawn["guided"],
        unguided=drawn["unguided"],
        real=judge.ranks(real, concepts),
        reconstructed=judge.ranks([to_picture(array) for array in decoded], concepts),
    )


def _shares(ranks: Ranks) -> list[str]:
    return [str(ranks.num_pictures), f"{ranks.top1:.1%}", f"{ranks.top5:.1%}"]
