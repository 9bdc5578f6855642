"""Words about pictures, one answer per row."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

from PIL import Image as PilImage

from mmgen.batch.fields import integer, text
from mmgen.batch.results import Answer, EncodedPicture, Result
from mmgen.batch.rows import Row, row_seed
from mmgen.batch.tasks.abstract import AbstractTask, ColumnKind
from mmgen.batch.tasks.caption_controls import CaptionControls, RuleMaker
from mmgen.batch.tasks.sampling import SamplingSettings
from mmgen.checkpoint import Checkpoint
from mmgen.document import Document, DocumentCodec, Image, Text, Turn
from mmgen.errors import EngineError, SettingsError
from mmgen.generate.engine import MAX_SEED
from mmgen.generate.requests import ChatRequest, check_prompt
from mmgen.generate.scoring import Scorer, ScoreRequest
from mmgen.pictures import open_picture

__all__ = ["CaptionSettings", "CaptionTask", "as_found"]

_SUFFIXES = {"jpeg": ".jpg", "mpo": ".jpg", "tiff": ".tif"}


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionSettings:
    """What holds for every row that does not say otherwise."""

    seed: int = 0
    """From which, with its id, each row's seed follows."""
    prompt: str | None = None
    """What to ask; None asks as the checkpoint has it."""
    max_tokens: int = 64
    """Longest answer."""
    tokenizer: str | None = None
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    controls: CaptionControls = field(default_factory=CaptionControls)

    def __post_init__(self) -> None:
        if not 0 <= self.seed <= MAX_SEED:
            raise SettingsError(f"a seed must be within 0 and {MAX_SEED}, got {self.seed}")
        if self.prompt is not None:
            check_prompt(self.prompt)
        if self.max_tokens < 1:
            raise SettingsError(f"max_tokens must be 1 or more, got {self.max_tokens}")

    def check(self, row: Row) -> None:
        """Refuse a row without a picture or with a setting outside its domain."""
        if row.picture is None:
            known = ", ".join(row.fields) or "none"
            raise SettingsError(f"the row has no picture; its fields are: {known}")
        prompt = text(row, "prompt")
        if prompt is not None:
            check_prompt(prompt)
        self.sampling.given(row)
        seed, max_tokens = integer(row, "seed"), integer(row, "max_tokens")
        if seed is not None and not 0 <= seed <= MAX_SEED:
            raise SettingsError(f"a seed must be within 0 and {MAX_SEED}, got {seed}")
        if max_tokens is not None and max_tokens < 1:
            raise SettingsError(f"max_tokens must be 1 or more, got {max_tokens}")
        self.controls.check(row)

    def row_seed(self, row: Row, place: int) -> int:
        """Return the seed of one of a row's answers; the first has the row's own."""
        seed = integer(row, "seed")
        if seed is not None:
            return (seed + place) % (MAX_SEED + 1)
        mark = f"{row.id}\n{place}" if place else row.id
        return row_seed(self.seed, mark)


class CaptionTask(AbstractTask):
    """Asks about the picture of each row."""

    def __init__(
        self,
        settings: CaptionSettings,
        checkpoint: Checkpoint,
        codec: DocumentCodec,
        *,
        keep_pictures: bool = False,
        scorer: Scorer | None = None,
    ) -> None:
        """Take what a task needs.

        Args:
            codec: has the checkpoint's visual tokenizers, with their encoders.
            keep_pictures: whether results have the picture that was looked at, as it was found.
            scorer: judges texts with the same model, where the settings want that.

        Raises:
            SettingsError: the settings want what this model or engine cannot do.
        """
        controls = settings.controls
        if controls.needs_scores and scorer is None:
            raise SettingsError("likelihoods can be had on the torch engine only")
        usual = settings.sampling.temperature
        if controls.tries > 1 and 0 == (
            checkpoint.generation.text.temperature if usual is None else usual
        ):
            raise SettingsError(
                "best-of needs answers that differ; give a --temperature above 0, such as 0.7"
            )
        self._rules = RuleMaker(controls, codec)
        self._scorer = scorer
        self._settings = settings
        self._checkpoint = checkpoint
        self._codec = codec
        self._keep_pictures = keep_pictures

    @property
    def name(self) -> str:
        return "caption"

    @property
    def settings(self) -> Mapping[str, Any]:
        return asdict(self._settings)

    @property
    def columns(self) -> Mapping[str, ColumnKind]:
        return {
            "caption": "str",
            "prompt": "str",
            "end": "str",
            "tokens": "int",
            "seed": "int",
            "captions": "json",
            "content": "json",
            "score": "float",
            "scores": "json",
            "given_score": "float",
        }

    @property
    def words(self) -> str:
        return "caption"

    def requests(self, row: Row) -> Sequence[ChatRequest]:
        self._settings.check(row)
        assert row.picture is not None
        defaults = self._checkpoint.generation
        tokenizer = text(row, "tokenizer") or self._settings.tokenizer or defaults.tokenizer
        prompt = text(row, "prompt") or self._settings.prompt or defaults.caption_prompt
        picture = open_picture(row.picture.read())
        # One at a time, so that codes are the same to the bit whatever is looked at beside them.
        (codes,) = self._codec.encode_images([picture], tokenizer)
        settings, controls = self._settings, self._settings.controls
        image = Image(codes=codes, tokenizer=tokenizer)
        beginning = controls.beginning(row)
        begun = (Turn("assistant", (Text(beginning),)),) if beginning else ()
        questions = controls.questions(row, prompt).values()
        asked = [question for question in questions for _ in range(controls.tries)]
        return [
            ChatRequest(
                document=Document(turns=(Turn("user", (image, Text(question))), *begun)),
                seed=settings.row_seed(row, place),
                text_sampling=settings.sampling.params(row, defaults.text),
                max_text_ids=integer(row, "max_tokens") or settings.max_tokens,
                max_images=0,
                rule=self._rules.rule(beginning),
            )
            for place, question in enumerate(asked)
        ]

    def finish(self, row: Row, answers: Sequence[Answer]) -> Result:
        assert row.picture is not None
        controls = self._settings.controls
        beginning = controls.beginning(row)
        names = controls.prompts or {"caption": ""}
        kept = [
            self._best([_Candidate(item, beginning) for item in answers[start:][: controls.tries]])
            for start in range(0, len(answers), controls.tries)
        ]
        first = kept[0]
        fields: dict[str, Any] = {
            "caption": first.caption,
            "prompt": first.question,
            "end": first.answer.end,
            "tokens": sum(item.usage.text_ids for item in answers),
            "seed": first.answer.request.seed,
        }
        if len(kept) > 1:
            named = dict(zip(names, kept, strict=True))
            fields["captions"] = {name: item.caption for name, item in named.items()}
        if controls.form is not None and controls.form.kind == "json":
            fields["content"] = controls.content(first.caption)
        if controls.has_scores or controls.tries > 1:
            fields["score"] = first.score
            if len(kept) > 1:
                fields["scores"] = {name: item.score for name, item in named.items()}
        given = controls.given_text(row)
        if given is not None:
            (fields["given_score"],) = self._scores([(first.asked, given)])
        pictures: tuple[EncodedPicture, ...] = ()
        if self._keep_pictures:
            pictures = (as_found(row.picture.read(), row.picture.name),)
        return Result(
            fields=fields,
            label=row.id,
            pictures=pictures,
            document=None if first.answer.turn is None else _dialogue(kept),
        )

    def _best(self, candidates: Sequence[_Candidate]) -> _Candidate:
        """Return the likeliest of the answers that are as they must be."""
        controls = self._settings.controls
        faults = [
            controls.unmet(item.caption, is_cut=item.answer.end != "end") for item in candidates
        ]
        good = [item for item, fault in zip(candidates, faults, strict=True) if fault is None]
        if not good:
            raise EngineError(f"no answer was as it must be: {faults[0]}")
        if controls.has_scores or controls.tries > 1:
            scores = self._scores([(item.asked, item.caption) for item in good])
            good = [replace(item, score=score) for item, score in zip(good, scores, strict=True)]
        # Of equal ones the first, so that nothing depends on chance.
        return max(good, key=lambda item: -math.inf if item.score is None else item.score)

    def _scores(self, pairs: Sequence[tuple[Turn, str]]) -> list[float | None]:
        """Return the mean log-likelihood per token of texts; None for an empty one."""
        assert self._scorer is not None
        requests = [ScoreRequest(Document(turns=(asked,)), text) for asked, text in pairs if text]
        values = iter(self._scorer.score(requests))
        return [round(next(values).mean, 6) if text else None for _, text in pairs]


@dataclass(frozen=True, slots=True, eq=False)
class _Candidate:
    """An answer, and how it began."""

    answer: Answer
    beginning: str
    score: float | None = None

    @property
    def caption(self) -> str:
        return (self.beginning + self.answer.text).strip()

    @property
    def asked(self) -> Turn:
        assert isinstance(self.answer.request, ChatRequest)
        return self.answer.request.document.turns[0]

    @property
    def question(self) -> str:
        return "".join(item.text for item in self.asked.segments if isinstance(item, Text))


def _dialogue(kept: Sequence[_Candidate]) -> Document:
    """Return questions and answers about one picture, which is shown once."""
    turns: list[Turn] = []
    for item in kept:
        asked = item.asked if not turns else Turn("user", (Text(item.question),))
        turns += [asked, Turn("assistant", (Text(item.caption),))]
    return Document(turns=tuple(turns))


def as_found(data: bytes, name: str) -> EncodedPicture:
    """Return a picture with the suffix that its contents deserve, whatever it was called."""
    with PilImage.open(io.BytesIO(data)) as picture:
        form = (picture.format or "").lower()
    suffix = _SUFFIXES.get(form) or (f".{form}" if form else PurePosixPath(name).suffix)
    return EncodedPicture(suffix, data)
