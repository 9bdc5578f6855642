"""Pictures from words, one per row."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from mmgen.batch.fields import integer, number, text
from mmgen.batch.results import Answer, EncodedPicture, Result
from mmgen.batch.rows import Row, row_seed
from mmgen.batch.tasks.abstract import AbstractTask, ColumnKind
from mmgen.batch.tasks.caption_controls import MAX_TRIES
from mmgen.batch.tasks.sampling import SamplingSettings
from mmgen.batch.templates import Template, values_of
from mmgen.checkpoint import Checkpoint
from mmgen.document import Document, Text, Turn
from mmgen.errors import EngineError, SettingsError
from mmgen.generate.engine import MAX_SEED
from mmgen.generate.provenance import Provenance, parse_size
from mmgen.generate.requests import DrawRequest, check_prompt
from mmgen.generate.scoring import Scorer
from mmgen.pictures import PictureFormat, encode_picture, to_picture

__all__ = ["SUFFIXES", "GenerateSettings", "GenerateTask"]

SUFFIXES: Mapping[PictureFormat, str] = {"png": ".png", "webp": ".webp", "jpeg": ".jpg"}
"""Of the files that pictures are written to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateSettings:
    """What holds for every row that does not say otherwise."""

    seed: int = 0
    """From which, with its id, each row's seed follows."""
    guidance: float | None = None
    size: tuple[int, int] | None = None
    """Height and width in pixels."""
    tokenizer: str | None = None
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    template: str | None = None
    """Makes the prompt of a row's fields; None takes the field of that name."""
    negative: str | None = None
    """What guidance leads away from; None for no condition at all."""
    tries: int = 1
    """Pictures drawn, of which the one is kept whose prompt the model finds likeliest."""
    picture_format: PictureFormat = "png"
    quality: int | None = None
    """Of JPEG and lossy WebP, 1 to 100; None for lossless WebP and Pillow's usual JPEG."""

    def __post_init__(self) -> None:
        if not 0 <= self.seed <= MAX_SEED:
            raise SettingsError(f"a seed must be within 0 and {MAX_SEED}, got {self.seed}")
        _check_guidance(self.guidance)
        if self.template is not None:
            Template(self.template)
        if self.negative is not None:
            check_prompt(self.negative)
        if not 1 <= self.tries <= MAX_TRIES:
            raise SettingsError(f"best-of must be within 1 and {MAX_TRIES}, got {self.tries}")
        if self.quality is not None and (
            self.picture_format == "png" or not 1 <= self.quality <= 100
        ):
            raise SettingsError(
                f"quality is 1 to 100, for JPEG and WebP, got {self.quality} for "
                f"{self.picture_format}"
            )

    def request(self, row: Row) -> DrawRequest:
        """Return what to draw for a row, sampling aside.

        Raises:
            SettingsError: the row has no prompt, or a setting outside its domain.
        """
        prompt = self._prompt(row)
        check_prompt(prompt)
        negative = text(row, "negative") or self.negative
        if negative is not None:
            check_prompt(negative)
        self.sampling.given(row)
        seed = integer(row, "seed")
        if seed is not None and not 0 <= seed <= MAX_SEED:
            raise SettingsError(f"a seed must be within 0 and {MAX_SEED}, got {seed}")
        guidance = number(row, "guidance")
        _check_guidance(guidance)
        size = text(row, "size")
        return DrawRequest(
            prompt=prompt,
            seed=row_seed(self.seed, row.id) if seed is None else seed,
            guidance_scale=self.guidance if guidance is None else guidance,
            negative_prompt=negative,
            size=self.size if size is None else parse_size(size),
            tokenizer=text(row, "tokenizer") or self.tokenizer,
        )

    def _prompt(self, row: Row) -> str:
        if self.template is not None:
            return Template(self.template).fill(values_of(row))
        prompt = text(row, "prompt")
        if prompt is None:
            known = ", ".join(row.fields) or "none"
            raise SettingsError(f"the row has no prompt; its fields are: {known}")
        return prompt


class GenerateTask(AbstractTask):
    """Draws one picture per row."""

    def __init__(
        self,
        settings: GenerateSettings,
        checkpoint: Checkpoint,
        *,
        model: str,
        scorer: Scorer | None = None,
    ) -> None:
        """Take what a task needs.

        Args:
            model: what pictures call the model that drew them.
            scorer: judges pictures with the same model, where several are drawn.

        Raises:
            SettingsError: the settings want what this engine cannot do.
        """
        if settings.tries > 1 and scorer is None:
            raise SettingsError("likelihoods can be had on the torch engine only")
        self._scorer = scorer
        self._settings = settings
        self._checkpoint = checkpoint
        self._model = model

    @property
    def name(self) -> str:
        return "generate"

    @property
    def settings(self) -> Mapping[str, Any]:
        return asdict(self._settings)

    @property
    def columns(self) -> Mapping[str, ColumnKind]:
        return {
            "prompt": "str",
            "seed": "int",
            "guidance": "float",
            "temperature": "float",
            "top_k": "int",
            "top_p": "float",
            "width": "int",
            "height": "int",
            "tokenizer": "str",
            "negative": "str",
            "score": "float",
            "scores": "json",
        }

    @property
    def words(self) -> str:
        return "prompt"

    def requests(self, row: Row) -> Sequence[DrawRequest]:
        request = self._settings.request(row)
        sampling = self._settings.sampling.params(row, self._checkpoint.generation.image)
        return [
            replace(request, sampling=sampling, seed=_other_seed(request.seed, place))
            for place in range(self._settings.tries)
        ]

    def finish(self, row: Row, answers: Sequence[Answer]) -> Result:
        if not all(answer.images for answer in answers):
            raise EngineError("no picture was drawn")
        scores = self._scores(answers)
        # Of equal ones the first, so that nothing depends on chance.
        best = max(range(len(answers)), key=scores.__getitem__) if scores else 0
        answer = answers[best]
        request = answer.request
        assert isinstance(request, DrawRequest)
        image = answer.images[0]
        picture = to_picture(image.picture)
        provenance = Provenance.of(image, request.prompt, self._model, self._checkpoint)
        data = encode_picture(
            picture,
            self._settings.picture_format,
            provenance.metadata(),
            quality=self._settings.quality,
        )
        template = self._checkpoint.generation.draw_template
        asked = Turn("user", (Text(template.replace("{prompt}", request.prompt)),))
        fields: dict[str, Any] = {
            "prompt": request.prompt,
            "seed": image.seed,
            "guidance": float(image.guidance_scale),
            "temperature": float(image.sampling.temperature),
            "top_k": image.sampling.top_k,
            "top_p": image.sampling.top_p,
            "width": picture.width,
            "height": picture.height,
            "tokenizer": image.tokenizer,
        }
        if image.negative_prompt is not None:
            fields["negative"] = image.negative_prompt
        if scores:
            fields |= {"score": scores[best], "scores": scores}
        return Result(
            fields=fields,
            label=request.prompt,
            pictures=(EncodedPicture(SUFFIXES[self._settings.picture_format], data),),
            document=None if answer.turn is None else Document(turns=(asked, answer.turn)),
        )

    def _scores(self, answers: Sequence[Answer]) -> list[float]:
        """Return how likely the model finds the prompt after each picture, per token."""
        if len(answers) < 2:
            return []
        assert self._scorer is not None
        requests = []
        for answer in answers:
            image, request = answer.images[0], answer.request
            assert isinstance(request, DrawRequest)
            requests.append(
                self._scorer.caption_request(image.codes, request.prompt, tokenizer=image.tokenizer)
            )
        return [round(item.mean, 6) for item in self._scorer.score(requests)]


def _other_seed(seed: int, place: int) -> int:
    """Return the seed of a row's further picture; the first has the row's own."""
    return row_seed(seed, str(place)) if place else seed


def _check_guidance(value: float | None) -> None:
    if value is not None and not 0 <= value < math.inf:
        raise SettingsError(f"guidance must be 0 or more, got {value}")
