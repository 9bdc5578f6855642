"""The chat with answers from a script: what the chat itself costs, without a model.

Runs as a program of its own, in a terminal: `python -m mmgen_chat.bench.stage repaint kitty 30
FILE` or `… memory half-block 100 FILE`; what was measured is written to the file as JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from mmgen.pictures import png_bytes
from mmgen.visual_tokenizer import Codes, Grid
from mmgen_chat.app import ChatApp
from mmgen_chat.backend import (
    AbstractBackend,
    BackendInfo,
    DrawRequest,
    Event,
    ImageFinished,
    ImageProgress,
    ImageStarted,
    ModelInfo,
    TextDelta,
    TurnFinished,
    TurnRequest,
    TurnStarted,
)
from mmgen_chat.conversation import Applied, Drawing, Picture, Usage
from mmgen_chat.errors import ChatError
from mmgen_chat.graphics import GRAPHICS, Graphics, Terminal
from mmgen_chat.settings import Settings
from mmgen_chat.store import Store
from mmgen_chat.widgets.picture_view import PictureView

__all__ = ["MemoryCost", "RepaintCost"]

_GRID = Grid(rows=8, columns=8)
_SIDE = 64
_MIB = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class RepaintCost:
    """What it takes to show one more state of a picture; medians."""

    graphics: str
    cpu_seconds: float
    """Of all threads, from the event to the data for the terminal."""
    num_bytes: float
    """Written to the terminal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryCost:
    """What a long dialogue keeps in memory."""

    num_turns: int
    num_pictures: int
    start_mib: float
    """Resident once the screen is there."""
    end_mib: float


class _ScriptedBackend(AbstractBackend):
    """Draws pictures of coarse random colours, each preview when it is asked for or at once."""

    def __init__(self, num_previews: int, *, is_stepped: bool) -> None:
        self._num_previews = num_previews
        self._is_stepped = is_stepped
        self._random = np.random.default_rng(0)
        self.wanted = asyncio.Semaphore(0)
        self.images: asyncio.Queue[Image.Image] = asyncio.Queue()

    async def open(self) -> BackendInfo:
        return BackendInfo(
            engine="script", model="script", abilities=frozenset({"draw", "look"}),
            context_length=4096, guidance_scale=3.0,
        )  # fmt: skip

    async def models(self) -> tuple[ModelInfo, ...]:
        return ()

    async def close(self) -> None:
        pass

    async def events(self, request: TurnRequest) -> AsyncGenerator[Event]:
        yield TurnStarted(model="script", prompt_ids=8)
        if isinstance(request, DrawRequest):
            async for event in self._picture(request):
                yield event
        else:
            yield TextDelta("coarse colours")
        usage = Usage(prompt_ids=8, text_ids=0, image_ids=_GRID.num_positions)
        applied = Applied(model="script", seed=request.settings.seed)
        yield TurnFinished(end="end", usage=usage, applied=applied, seconds=1.0)

    async def _picture(self, request: DrawRequest) -> AsyncGenerator[Event]:
        total = _GRID.num_positions
        drawing = Drawing(
            prompt=request.prompt, model="script", seed=request.settings.seed, num_codes=total
        )
        picture = Picture(size=(_SIDE, _SIDE), tokenizer="script", drawing=drawing)
        yield ImageStarted(index=0, picture=picture)
        tiles = self._random.integers(0, 256, (_GRID.rows, _GRID.columns, 3), dtype=np.uint8)
        codes = Codes(np.arange(total, dtype=np.int64)[:, None], _GRID)
        image = Image.new("RGB", (_SIDE, _SIDE))
        for step in range(1, self._num_previews + 1):
            if self._is_stepped:
                await self.wanted.acquire()
            num_done = max(1, total * step // self._num_previews)
            shown = np.full_like(tiles, 128).reshape(total, 3)
            shown[:num_done] = tiles.reshape(total, 3)[:num_done]
            image = Image.fromarray(shown.reshape(tiles.shape)).resize(
                (_SIDE, _SIDE), Image.Resampling.BICUBIC
            )
            if self._is_stepped:
                self.images.put_nowait(image)
            yield ImageProgress(
                index=0, num_done=num_done, num_codes=total, codes=None, preview=image
            )
        yield ImageFinished(
            index=0,
            picture=Picture(
                id=picture.id, png=png_bytes(image), size=(_SIDE, _SIDE), codes=codes,
                tokenizer="script", fingerprint="0",
                drawing=Drawing(
                    prompt=request.prompt, model="script", seed=request.settings.seed,
                    num_done=total, num_codes=total, seconds=1.0,
                ),
            ),
        )  # fmt: skip


class _StageApp(ChatApp):
    """The application, and what is measured once it is on the screen."""

    def __init__(
        self, kind: str, graphics: Graphics, count: int, store: Store, target: Path
    ) -> None:
        # The first preview also lays the picture out, and the last is never asked for, since the
        # finished picture would come at its heels: neither is counted.
        self._count = count
        self._kind = kind
        self._target = target
        is_stepped = kind == "repaint"
        self._script = _ScriptedBackend(count + 2 if is_stepped else 8, is_stepped=is_stepped)
        self._was_displayed = asyncio.Event()
        self._num_bytes = 0
        super().__init__(
            lambda model, endpoint: self._script,
            terminal=Terminal(graphics=graphics),
            settings=Settings(),
            store=store,
        )

    async def on_ready(self) -> None:
        self.run_worker(self._measure())

    def post_display_hook(self) -> None:
        super().post_display_hook()
        self._was_displayed.set()

    async def _measure(self) -> None:
        await asyncio.sleep(0.5)
        if self._kind == "repaint":
            cost: RepaintCost | MemoryCost = await self._measure_repaint()
        else:
            cost = await self._measure_memory()
        self._target.write_text(json.dumps(asdict(cost)), encoding="utf-8")
        self.exit()

    async def _measure_repaint(self) -> RepaintCost:
        self._count_bytes()
        self._say("/draw colours")
        await self._until(lambda: bool(self.chat.turns.query(PictureView)))
        view = self.chat.turns.query(PictureView).last()
        seconds: list[float] = []
        sizes: list[int] = []
        for _ in range(self._count + 1):
            await asyncio.sleep(0.1)
            before, num_bytes = time.process_time(), self._num_bytes
            self._script.wanted.release()
            image = await self._script.images.get()
            while view.image is not image:
                self._was_displayed.clear()
                await self._was_displayed.wait()
            # The line below the picture says how far it is, and comes with the same display.
            await asyncio.sleep(0.05)
            seconds.append(time.process_time() - before)
            sizes.append(self._num_bytes - num_bytes)
        return RepaintCost(
            graphics=self.surface.terminal.graphics,
            cpu_seconds=median(seconds[1:]),
            num_bytes=median(sizes[1:]),
        )

    async def _measure_memory(self) -> MemoryCost:
        start = _resident_mib()
        for number in range(1, self._count + 1):
            self._say(f"/draw colours, number {number}")
            await self._until(
                lambda number=number: (  # type: ignore[misc]
                    len(self.chat.conversation.turns) == 2 * number and not self.chat.is_answering
                )
            )
        await self.keeper.flush()
        await asyncio.sleep(0.5)
        turns = self.chat.conversation.path()
        return MemoryCost(
            num_turns=len(turns),
            num_pictures=sum(len(turn.pictures) for turn in turns),
            start_mib=start,
            end_mib=_resident_mib(),
        )

    def _say(self, text: str) -> None:
        self.chat.composer.put(text)
        self.chat.composer.send()

    async def _until(self, is_true: Callable[[], bool]) -> None:
        end = time.monotonic() + 60
        while not is_true():
            if time.monotonic() > end:
                raise ChatError("the chat took more than a minute for a picture of the script")
            await asyncio.sleep(0.005)

    def _count_bytes(self) -> None:
        driver = self._driver
        assert driver is not None
        write = driver.write

        def counted(data: str) -> None:
            self._num_bytes += len(data.encode())
            write(data)

        driver.write = counted  # type: ignore[method-assign]


def _resident_mib() -> float:
    """Return resident memory now; its peak where the system tells no more."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak * (1 if sys.platform == "darwin" else 1024) / _MIB
    return pages * os.sysconf("SC_PAGE_SIZE") / _MIB


def main() -> None:
    """Measure one thing and write it to a file."""
    kind, wanted, count, target = sys.argv[1:]
    graphics = next(item for item in GRAPHICS if item == wanted)
    with Store(Path(target).with_suffix(".db")) as store:
        app = _StageApp(kind, graphics, int(count), store, Path(target))
        app.run()
    sys.exit(app.return_code or 0)


if __name__ == "__main__":
    main()
