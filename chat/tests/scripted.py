"""A backend that answers from a script, so that screens can be tested step by step.

It draws small pictures of one colour per code, the colour decided by the seed, and can be told to
wait at any code until it is let go.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from mmgen.errors import MmgenError
from mmgen.pictures import png_bytes
from mmgen.visual_tokenizer import Codes, Grid
from mmgen_chat.backend import (
    Ability,
    AbstractBackend,
    BackendInfo,
    CaptionRequest,
    ChatRequest,
    DrawRequest,
    Event,
    ImageFinished,
    ImageProgress,
    ImageStarted,
    ModelInfo,
    TextDelta,
    TokenizerInfo,
    TurnFailed,
    TurnFinished,
    TurnRequest,
    TurnStarted,
)
from mmgen_chat.conversation import Applied, Drawing, Picture, Usage
from mmgen_chat.errors import EndpointDownError

__all__ = ["ScriptedBackend", "colored"]

GRID = Grid(rows=4, columns=4)
NUM_CODES = GRID.num_positions
SIDE = 16
COLORS = [(200, 40, 40), (40, 160, 60), (50, 80, 200), (230, 180, 40), (150, 60, 170)]


def colored(array: list[int]) -> Image.Image:
    """Return the picture of some codes; what is missing is grey."""
    pixels = np.full((4, 4, 3), 128, dtype=np.uint8)
    for index, code in enumerate(array):
        pixels[index // 4, index % 4] = COLORS[code % len(COLORS)]
    return Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.NEAREST)


@dataclass
class ScriptedBackend(AbstractBackend):
    """Answers by rules that a test can foresee."""

    name: str = "scripted"
    words: str = "Here you are."
    """What it says when it is asked to say something."""
    abilities: frozenset[Ability] = frozenset({"draw", "look", "score"})
    breaks_at: int | None = None
    """Code at which the connection breaks."""
    refuses: MmgenError | None = None
    """Why it cannot be opened."""
    lengths: tuple[int, ...] = ()
    """Numbers of codes that a picture may have."""
    gate: asyncio.Event | None = None
    """What each code after `free` waits for."""
    free: int = 0
    requests: list[TurnRequest] = field(default_factory=list)
    num_stopped: int = 0
    is_closed: bool = False

    def step(self) -> None:
        """Let one more code come."""
        assert self.gate is not None
        self.free += 1
        self.gate.set()
        self.gate.clear()

    async def open(self) -> BackendInfo:
        if self.refuses is not None:
            raise self.refuses
        return BackendInfo(
            engine="script",
            model=self.name,
            abilities=self.abilities,
            context_length=256,
            tokenizers=(
                TokenizerInfo(name="tiles", sizes=((SIDE, SIDE), (32, 32)), lengths=self.lengths),
            ),
            guidance_scale=3.0,
        )

    async def models(self) -> tuple[ModelInfo, ...]:
        return (ModelInfo(name="scripted"), ModelInfo(name="other"))

    async def close(self) -> None:
        self.is_closed = True

    async def events(self, request: TurnRequest) -> AsyncGenerator[Event]:
        self.requests.append(request)
        finished = False
        try:
            async for event in self._events(request):
                finished = isinstance(event, TurnFinished | TurnFailed)
                yield event
        finally:
            self.num_stopped += not finished

    async def likelihood(self, picture: Picture, prompt: str) -> float:
        assert picture.drawing is not None and picture.drawing.seed is not None
        return -1.0 - abs(picture.drawing.seed - 12) / 10

    async def _events(self, request: TurnRequest) -> AsyncGenerator[Event]:
        yield TurnStarted(model=self.name, prompt_ids=7)
        text_ids = image_ids = 0
        match request:
            case CaptionRequest():
                words = [self.words] if request.prompt else ["A coloured", " square."]
            case DrawRequest():
                words = []
            case ChatRequest():
                words = [f"{word} " for word in self.words.split()]
        for word in words:
            await asyncio.sleep(0)
            text_ids += 1
            yield TextDelta(word)
        number = request.number if isinstance(request, DrawRequest) else 1
        text = request.turns[-1].text if isinstance(request, ChatRequest) else ""
        if isinstance(request, DrawRequest) or text.startswith("draw"):
            prompt = request.prompt if isinstance(request, DrawRequest) else text
            for index in range(number):
                seed = request.settings.seed + index
                length = request.settings.length or NUM_CODES
                async for event in self._picture(index, prompt, seed, length):
                    image_ids += isinstance(event, ImageProgress)
                    yield event
                    if isinstance(event, TurnFailed):
                        return
        usage = Usage(prompt_ids=7, text_ids=text_ids, image_ids=image_ids)
        applied = Applied(model=self.name, seed=request.settings.seed)
        yield TurnFinished(end="end", usage=usage, applied=applied, seconds=1.0)

    async def _picture(
        self, index: int, prompt: str, seed: int, length: int
    ) -> AsyncGenerator[Event]:
        drawing = Drawing(
            prompt=prompt, model=self.name, seed=seed, guidance_scale=3.0, num_codes=length
        )
        picture = Picture(size=(SIDE, SIDE), tokenizer="tiles", drawing=drawing)
        yield ImageStarted(index=index, picture=picture)
        codes: list[int] = []
        for done in range(1, length + 1):
            while self.gate is not None and done > self.free:
                await self.gate.wait()
            if done == self.breaks_at:
                error = EndpointDownError("the server went away in the middle")
                yield TurnFailed(error=error, can_retry=True)
                return
            await asyncio.sleep(0)
            codes.append((seed + done) % len(COLORS))
            yield ImageProgress(
                index=index,
                num_done=done,
                num_codes=length,
                codes=Codes(np.array(codes)[:, None], GRID),
                preview=colored(codes),
            )
        yield ImageFinished(
            index=index,
            picture=Picture(
                id=picture.id,
                png=png_bytes(colored(codes)),
                size=(SIDE, SIDE),
                codes=Codes(np.array(codes)[:, None], GRID),
                tokenizer="tiles",
                fingerprint="0",
                drawing=Drawing(
                    prompt=prompt, model=self.name, seed=seed, guidance_scale=3.0,
                    num_done=length, num_codes=length, seconds=1.5,
                ),
            ),
        )  # fmt: skip
