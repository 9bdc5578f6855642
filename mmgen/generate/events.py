"""What a session tells while a turn is being generated, as small frozen objects.

Every event carries the index of its request, so that many turns can share one stream. Pictures
that are not finished are decoded only when somebody asks to see one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from mmgen.document import Turn
from mmgen.errors import MmgenError
from mmgen.generate.engine import SamplingParams
from mmgen.visual_tokenizer import AbstractVisualTokenizer, Codes, Layout, Picture
from mmgen.vocabulary import Vocabulary

__all__ = [
    "Event",
    "ImageFinished",
    "ImageProgress",
    "ImageStarted",
    "TextDelta",
    "Timings",
    "TurnEnd",
    "TurnFailed",
    "TurnFinished",
    "Usage",
]

TurnEnd: TypeAlias = Literal["end", "length", "image"]
"""Why a turn is over: the model ended it, no more ids were wanted, or its image is drawn."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Ids that a turn took."""

    prompt_ids: int
    """All that was read, pictures included."""
    prompt_image_ids: int
    """Codes among them."""
    text_ids: int
    image_ids: int
    cached_ids: int | None = None
    """Ids of the prompt that did not have to be read; None where the engine does not count them."""


@dataclass(frozen=True, slots=True)
class Timings:
    """How long a turn took, in seconds since its request was taken up."""

    first_id: float
    total: float


@dataclass(frozen=True, slots=True)
class TextDelta:
    """Some more text."""

    index: int
    text: str


@dataclass(frozen=True, slots=True)
class ImageStarted:
    """An image is about to be drawn."""

    index: int
    tokenizer: str
    layout: Layout
    num_codes: int
    """Codes that it will have, those of all codebooks counted."""


@dataclass(frozen=True, slots=True, eq=False)
class ImageProgress:
    """One more code of an image is there."""

    index: int
    tokenizer: str
    layout: Layout
    num_done: int
    """Codes so far."""
    num_codes: int
    """Codes in all."""
    code_ids: list[int]
    """Token ids of the image's codes; the list grows while the image is drawn."""
    vocabulary: Vocabulary
    decoder: AbstractVisualTokenizer
    caption: str = ""
    """What it is to show, for a decoder that reads captions."""

    @property
    def codes(self) -> Codes:
        """The positions that were complete at this event."""
        num_codebooks = self.vocabulary.tokenizer(self.tokenizer).num_codebooks
        num_ids = self.num_done - self.num_done % num_codebooks
        array = self.vocabulary.codes(self.tokenizer, self.code_ids[:num_ids])
        return Codes(array, self.layout)

    def preview(self) -> Picture:
        """Decode what is there; the rest is blank."""
        is_read = "decode" in self.decoder.spec.captions_used
        return self.decoder.preview(self.codes, caption=self.caption if is_read else None)


@dataclass(frozen=True, slots=True, eq=False)
class ImageFinished:
    """An image is drawn."""

    index: int
    tokenizer: str
    picture: Picture
    codes: Codes
    seed: int
    """The seed that its codes were drawn from."""
    guidance_scale: float
    """The guidance that was applied."""
    sampling: SamplingParams
    """How its codes were chosen."""
    seconds: float
    """From the start of the image to the decoded picture."""
    num_ids: int
    """Codes drawn."""
    negative_prompt: str | None = None
    """What guidance led away from, where words said it."""
    num_restarts: int = 0
    """Times that the engine had to take the image up again."""
    caption: str = ""
    """What it was to show, for decoders that read captions."""
    image_guidance_scale: float | None = None
    """The guidance that was applied to the pictures that users show; None for as their words."""


@dataclass(frozen=True, slots=True)
class TurnFinished:
    """A turn is over."""

    index: int
    turn: Turn
    """What was said and drawn; images as codes."""
    text: str
    """All text of the turn."""
    end: TurnEnd
    usage: Usage
    timings: Timings


@dataclass(frozen=True, slots=True)
class TurnFailed:
    """A request among many could not be served; the others go on."""

    index: int
    error: MmgenError


Event: TypeAlias = (
    TextDelta | ImageStarted | ImageProgress | ImageFinished | TurnFinished | TurnFailed
)
