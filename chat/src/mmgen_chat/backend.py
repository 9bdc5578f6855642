"""What answers: the contract between the chat and a model, wherever the model runs.

A backend takes a request for one turn and gives a stream of typed events. `mmgen_chat.embedded`
runs a checkpoint in this process, `mmgen_chat.endpoint` talks to a server. Nothing outside those
two modules knows which of them is at work.
"""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self, TypeAlias

from mmgen.errors import MmgenError, SettingsError
from mmgen.generate.engine import MAX_SEED, SamplingParams
from mmgen_chat.conversation import Applied, Picture, Turn, Usage
from mmgen_chat.errors import NotSupportedError

if TYPE_CHECKING:
    from types import TracebackType

    from PIL import Image as PilImage

    from mmgen.visual_tokenizer import Codes

__all__ = [
    "Ability",
    "AbstractBackend",
    "BackendInfo",
    "CaptionRequest",
    "ChatRequest",
    "DrawRequest",
    "End",
    "Event",
    "ImageFinished",
    "ImageProgress",
    "ImageStarted",
    "ModelInfo",
    "PictureEncoded",
    "TextDelta",
    "TokenizerInfo",
    "TurnFailed",
    "TurnFinished",
    "TurnRequest",
    "TurnSettings",
    "TurnStarted",
    "TurnsLeftOut",
    "new_seed",
]

Ability: TypeAlias = Literal["draw", "look", "extend", "score", "render"]
"""Drawing pictures, looking at them, continuing one, judging one, decoding codes to pixels."""

End: TypeAlias = Literal["end", "length", "image"]
"""Why an answer is over: the model ended it, no more was wanted, or its picture is drawn."""

MAX_CHOSEN_SEED = 2**32
"""Seeds that are chosen for the user stay below, so that they are easy to copy."""


def new_seed() -> int:
    """Return a seed for a request whose user gave none."""
    return secrets.randbelow(MAX_CHOSEN_SEED)


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnSettings:
    """How an answer is made. What is None is as the model has it."""

    seed: int
    """Decides the answer; `new_seed()` gives a fresh one."""
    guidance_scale: float | None = None
    """How strongly pictures follow the words; 1 is without guidance."""
    image_guidance_scale: float | None = None
    """How strongly pictures follow those that the user shows, if any; None for as the words."""
    text_sampling: SamplingParams | None = None
    """How words are chosen."""
    image_sampling: SamplingParams | None = None
    """How codes are chosen."""
    tokenizer: str | None = None
    """Which visual tokenizer draws and looks."""
    size: tuple[int, int] | None = None
    """Height and width of drawn pictures in pixels."""
    length: int | None = None
    """Positions of drawn pictures, for visual tokenizers of variable length."""
    max_text_ids: int | None = None
    """Longest answer in words, in tokens."""
    max_images: int = 1
    """Most pictures in a free answer."""

    def __post_init__(self) -> None:
        if not 0 <= self.seed <= MAX_SEED:
            raise SettingsError(f"a seed must be within 0 and {MAX_SEED}, got {self.seed}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """The answer to a dialogue; the model decides when to draw."""

    turns: tuple[Turn, ...]
    """The dialogue so far, the oldest first, a user's turn at the end."""
    settings: TurnSettings
    must_draw: bool = False
    """Whether the answer opens with a picture, whatever the model would choose."""
    may_leave_out: bool = False
    """Whether the oldest turns may be left out when the dialogue does not fit; else
    `NoRoomError` says so. `TurnsLeftOut` tells which were."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawRequest:
    """Pictures of a prompt, whatever was said before."""

    prompt: str
    settings: TurnSettings
    number: int = 1
    """How many; picture `i` has the seed `settings.seed + i`."""
    extends: Picture | None = None
    """A picture of variable length to be refined: its codes stay, more follow up to
    `settings.length`. Needs the ability `extend`."""

    def __post_init__(self) -> None:
        if self.number < 1:
            raise SettingsError(f"the number of pictures must be 1 or more, got {self.number}")


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionRequest:
    """Words about one picture, whatever was said before."""

    picture: Picture
    prompt: str | None = None
    """What to ask; without it, what the model was trained to be asked."""
    settings: TurnSettings


TurnRequest: TypeAlias = ChatRequest | DrawRequest | CaptionRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnStarted:
    """The request was taken up."""

    model: str
    prompt_ids: int | None = None
    """Ids of the dialogue, where the backend knows before the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnsLeftOut:
    """The dialogue did not fit the context, so its oldest turns are not seen by the model."""

    turn_ids: tuple[str, ...]
    """Those left out, the oldest first."""
    context_length: int | None = None
    """Ids that the model can follow, where the backend knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureEncoded:
    """An attached picture now has codes; keep them, so that it is looked at only once."""

    picture: Picture
    """The same picture, with its codes."""


@dataclass(frozen=True, slots=True)
class TextDelta:
    """Some more words, as the model said them: not yet safe for a terminal."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageStarted:
    """A picture is about to be drawn."""

    index: int
    """Which of the answer's pictures, from 0; several may grow at once."""
    picture: Picture
    """What is known of it: id, drawing, size; neither codes nor rendering yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageProgress:
    """More of a picture is there."""

    index: int
    num_done: int | None
    """Codes that are there; None where a server does not say."""
    num_codes: int | None
    codes: Codes | None
    """Those that are there; None where a server does not give them."""
    preview: PilImage.Image | None
    """What there is to see, RGB; None when nothing was rendered at this step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFinished:
    """A picture is drawn. It may come again for the same one, with more about how it was made."""

    index: int
    picture: Picture
    """With the id of its `ImageStarted`, its rendering, and its codes where there are any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnFinished:
    """The answer is complete. Always the last event."""

    end: End
    usage: Usage
    applied: Applied
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnFailed:
    """The answer broke off; what came before is worth keeping. Always the last event."""

    error: MmgenError
    can_retry: bool
    """Whether the same request may do better another time."""


Event: TypeAlias = (
    TurnStarted
    | TurnsLeftOut
    | PictureEncoded
    | TextDelta
    | ImageStarted
    | ImageProgress
    | ImageFinished
    | TurnFinished
    | TurnFailed
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerInfo:
    """What a visual tokenizer of a model offers."""

    name: str
    sizes: tuple[tuple[int, int], ...] = ()
    """Heights and widths in pixels, the default first."""
    lengths: tuple[int, ...] = ()
    """Numbers of positions to choose from, ascending; empty where there is no choice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendInfo:
    """What a backend turned out to be, once it is open."""

    engine: str
    """`torch (cpu)`, or the address of a server; nothing secret."""
    model: str
    abilities: frozenset[Ability]
    context_length: int | None = None
    tokenizers: tuple[TokenizerInfo, ...] = ()
    """The default first; empty where the backend does not tell."""
    guidance_scale: float | None = None
    """The model's default."""
    text_sampling: SamplingParams | None = None
    """The model's default, where the backend tells."""
    image_sampling: SamplingParams | None = None
    """The model's default, where the backend tells."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """A model that could be opened in place of this one."""

    name: str
    detail: str = ""
    """One line about it."""


class AbstractBackend(ABC):
    """Answers requests with streams of events, several at once if they come so.

    All methods are called on one event loop; none of them blocks it.
    """

    @abstractmethod
    async def open(self) -> BackendInfo:
        """Load or reach the model; the second call returns at once.

        Raises:
            MmgenError: it cannot be used; opening may be tried again.
        """

    @abstractmethod
    def events(self, request: TurnRequest) -> AsyncGenerator[Event]:
        """Answer a request, opening the backend first where needed.

        Nothing is raised for a state of the world: the last event is `TurnFinished` or
        `TurnFailed`. Closing the iterator, or cancelling who waits for it, stops the model at
        once; no event follows then.
        """

    @abstractmethod
    async def models(self) -> tuple[ModelInfo, ...]:
        """Return the models to choose from."""

    @abstractmethod
    async def close(self) -> None:
        """Cancel what runs and give everything back."""

    async def caption(self, picture: Picture) -> str:
        """Return the model's own words for a picture, for use as alternative text.

        Raises:
            MmgenError: the model cannot look at pictures, or failed.
        """
        words: list[str] = []
        settings = TurnSettings(seed=0, max_text_ids=64)
        async for event in self.events(CaptionRequest(picture=picture, settings=settings)):
            match event:
                case TextDelta(text):
                    words.append(text)
                case TurnFailed(error=error):
                    raise error
        return "".join(words).strip()

    async def likelihood(self, picture: Picture, prompt: str) -> float:
        """Return how well a picture fits a prompt: a larger number is a better fit.

        It is the mean log-probability per token that the model gives to the prompt as a
        description of the picture, so only pictures of one prompt and model can be compared.

        Raises:
            MmgenError: this backend cannot judge, or failed.
        """
        raise NotSupportedError(
            "this model cannot judge its pictures from here; run it in this process (without an "
            "endpoint) to choose the best of several"
        )

    async def render(self, picture: Picture) -> Picture:
        """Return a picture with a rendering of its codes, complete or not.

        Raises:
            MmgenError: the codes belong to another tokenizer, or this backend cannot decode.
        """
        raise NotSupportedError(
            "a server gives pictures, not codes; run the model in this process to decode codes"
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()
