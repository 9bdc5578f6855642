"""Words about pictures, one answer per row."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import PurePosixPath
from typing import Any

from PIL import Image as PilImage

from mmgen.batch.fields import integer, text
from mmgen.batch.results import Answer, EncodedPicture, Result
from mmgen.batch.rows import Row, row_seed
from mmgen.batch.tasks.abstract import AbstractTask, ColumnKind
from mmgen.batch.tasks.sampling import SamplingSettings
from mmgen.checkpoint import Checkpoint
from mmgen.document import Document, DocumentCodec, Image, Text, Turn
from mmgen.errors import SettingsError
from mmgen.generate.engine import MAX_SEED
from mmgen.generate.requests import ChatRequest, check_prompt
from mmgen.pictures import open_picture

__all__ = ["CaptionSettings", "CaptionTask"]

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


class CaptionTask(AbstractTask):
    """Asks about the picture of each row."""

    def __init__(
        self,
        settings: CaptionSettings,
        checkpoint: Checkpoint,
        codec: DocumentCodec,
        *,
        keep_pictures: bool = False,
    ) -> None:
        """Take what a task needs.

        Args:
            codec: has the checkpoint's visual tokenizers, with their encoders.
            keep_pictures: whether results have the picture that was looked at, as it was found.
        """
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
        segments = (Image(codes=codes, tokenizer=tokenizer), Text(prompt))
        seed = integer(row, "seed")
        return (
            ChatRequest(
                document=Document(turns=(Turn("user", segments),)),
                seed=row_seed(self._settings.seed, row.id) if seed is None else seed,
                text_sampling=self._settings.sampling.params(row, defaults.text),
                max_text_ids=integer(row, "max_tokens") or self._settings.max_tokens,
                max_images=0,
            ),
        )

    def finish(self, row: Row, answers: Sequence[Answer]) -> Result:
        (answer,) = answers
        request = answer.request
        assert isinstance(request, ChatRequest) and row.picture is not None
        (asked,) = request.document.turns
        pictures: tuple[EncodedPicture, ...] = ()
        if self._keep_pictures:
            pictures = (_as_found(row.picture.read(), row.picture.name),)
        return Result(
            fields={
                "caption": answer.text.strip(),
                "prompt": "".join(item.text for item in asked.segments if isinstance(item, Text)),
                "end": answer.end,
                "tokens": answer.usage.text_ids,
                "seed": request.seed,
            },
            label=row.id,
            pictures=pictures,
            document=None if answer.turn is None else Document(turns=(asked, answer.turn)),
        )


def _as_found(data: bytes, name: str) -> EncodedPicture:
    """Return a picture with the suffix that its contents deserve, whatever it was called."""
    with PilImage.open(io.BytesIO(data)) as picture:
        form = (picture.format or "").lower()
    suffix = _SUFFIXES.get(form) or (f".{form}" if form else PurePosixPath(name).suffix)
    return EncodedPicture(suffix, data)
