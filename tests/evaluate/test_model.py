"""Measuring models, with one that knows everything and one that knows nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from PIL import Image

from mmgen.errors import DataError
from mmgen.evaluate.classifier import ClassifierConfig
from mmgen.evaluate.model import (
    ModelEvaluationConfig,
    ModelReport,
    Subject,
    evaluate_model,
    names_group,
    pairs_to_draw,
)
from mmgen.evaluate.pack import EmojiRow
from mmgen.evaluate.progress import unwatched
from mmgen.plugins import load_visual_tokenizer_class

GROUP_FORMS = {"flat": "a flat thing", "round-things": "round things"}
CONFIG = ModelEvaluationConfig(
    group_forms=GROUP_FORMS,
    guidance_scale=2.0,
    batch_size=3,
    classifier=ClassifierConfig(side=16, widths=(8, 16), num_epochs=60, batch_size=16, lr=1e-2),
)


class Knowing:
    """Draws the pack's own pictures and reads their rows; without guidance it draws nothing."""

    def __init__(self, rows: Sequence[EmojiRow]) -> None:
        self._rows = rows
        self.requests: list[tuple[str, int, float]] = []

    def draw(
        self, prompts: Sequence[str], *, seeds: Sequence[int], guidance_scale: float
    ) -> list[Image.Image]:
        self.requests += [(p, s, guidance_scale) for p, s in zip(prompts, seeds, strict=True)]
        if guidance_scale == 1.0:
            return [Image.new("RGB", (64, 64), "white") for _ in prompts]
        by_prompt = {row.caption_short: row for row in self._rows}
        return [by_prompt[prompt].open() for prompt in prompts]

    def ask(self, pictures: Sequence[Image.Image], question: str) -> list[str]:
        by_pixels: Mapping[bytes, EmojiRow] = {row.open().tobytes(): row for row in self._rows}
        found = [by_pixels[picture.tobytes()] for picture in pictures]
        if question == CONFIG.group_question:
            return [f"It is {GROUP_FORMS[row.group]}." for row in found]
        return [f"{row.phrase}, in {row.style_phrase}." for row in found]


class Ignorant:
    """Draws white and says nothing."""

    def draw(
        self, prompts: Sequence[str], *, seeds: Sequence[int], guidance_scale: float
    ) -> list[Image.Image]:
        return [Image.new("RGB", (64, 64), "white") for _ in prompts]

    def ask(self, pictures: Sequence[Image.Image], question: str) -> list[str]:
        return ["" for _ in pictures]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("evaluation")


def measure(subject: Subject, rows: Sequence[EmojiRow], directory: Path) -> ModelReport:
    palette = load_visual_tokenizer_class("palette").load()
    return evaluate_model(subject, palette, "palette", rows, directory, CONFIG, progress=unwatched)


def test_a_knowing_model_scores_as_real_pictures_do(rows: list[EmojiRow], directory: Path) -> None:
    subject = Knowing(rows)
    report = measure(subject, rows, directory)
    assert (report.captions.num_named, report.captions.named) == (3, 1.0)
    assert (report.captions.num_grouped, report.captions.grouped) == (9, 1.0)
    train, val_style = report.drawings
    assert (train.split, train.guided.num_pictures) == ("train", 8)
    assert (val_style.split, val_style.guided.num_pictures) == ("val_style", 1)
    assert train.guided.top1 == train.real.top1 == 1.0
    assert train.unguided.top1 < 1.0
    assert report.judge.top1 == 1.0
    assert report.tokenizer.num_pictures == 9
    guided = [request for request in subject.requests if request[2] == 2.0]
    assert [seed for _, seed, _ in guided] == [*range(8), 0]


def test_files_for_people_are_written(rows: list[EmojiRow], directory: Path) -> None:
    report = measure(Knowing(rows), rows, directory)
    names = {path.name for path in directory.iterdir()}
    assert {
        "answers.jsonl",
        "reconstructions.png",
        "drawn-train-guided.png",
        "drawn-train-unguided.png",
        "drawn-val_style-guided.png",
        "drawn-val_style-unguided.png",
    } <= names
    answers = [json.loads(line) for line in (directory / "answers.jsonl").read_text().splitlines()]
    assert len(answers) == 12
    assert answers[0]["answer"] == "a circle, in blue."
    assert "| concept named (val_style) | 3 | 100.0% |" in report.markdown()
    json.dumps(report.as_json(), allow_nan=False)


def test_an_ignorant_model_scores_nothing(rows: list[EmojiRow], directory: Path) -> None:
    report = measure(Ignorant(), rows, directory)
    assert report.captions.named == 0.0
    assert report.captions.grouped == 0.0
    assert report.drawings[0].guided.top1 <= 3 / 8
    assert report.drawings[0].guided == report.drawings[0].unguided


def test_a_pack_without_a_split_is_refused(rows: list[EmojiRow], tmp_path: Path) -> None:
    train_only = [row for row in rows if row.split == "train"]
    with pytest.raises(DataError, match="no rows of split val"):
        measure(Ignorant(), train_only, tmp_path)


def test_pairs_are_distinct_plain_and_fixed_by_the_seed(rows: list[EmojiRow]) -> None:
    train = [row for row in rows if row.split == "train"]
    chosen = pairs_to_draw(train, 5, seed=0)
    assert len({(row.concept, row.style) for row in chosen}) == 5
    assert {row.tone for row in chosen} == {0}
    assert chosen == pairs_to_draw(train[::-1], 5, seed=0)
    assert chosen != pairs_to_draw(train, 5, seed=1)
    assert len(pairs_to_draw(train, 500, seed=0)) == 8


def test_the_first_group_named_counts() -> None:
    forms = {"food-drink": "food and drink", "flags": "flags"}
    assert names_group("It belongs to Food and Drink, not flags.", "food-drink", forms)
    assert not names_group("flags or food and drink", "food-drink", forms)
    assert not names_group("something else", "flags", forms)


def test_counts_must_be_positive() -> None:
    with pytest.raises(ValueError, match="positive"):
        ModelEvaluationConfig(group_forms={}, guidance_scale=1.0, num_pairs=0)
