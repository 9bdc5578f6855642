"""The measurements, each in a program of its own in a pseudo-terminal.

The wait for the screen and for a key are those of the real chat with a real model; repaints and
memory are those of the chat alone, with answers from a script.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

from mmgen.errors import SettingsError
from mmgen_chat.bench.pseudo_terminal import ProgramInTerminal
from mmgen_chat.bench.stage import MemoryCost, RepaintCost
from mmgen_chat.errors import ChatError
from mmgen_chat.graphics import GRAPHICS

__all__ = ["ChatBench", "ChatBenchConfig", "measure_chat"]

_PROMPT_MARK = "›".encode()
_LOADED = rb"torch|no model"
_GROWING = rb"[0-9]+ of [0-9]+ tokens"
_DRAWN = rb"[0-9] tokens \xc2\xb7 [0-9.]+ s"
_KEYS = [chr(code) for code in range(0x100, 0x180) if chr(code).isalpha()]
"""Letters that stand nowhere else on the screen, so that each one seen is an echo."""
_PAUSE = 0.07
"""Seconds between two keys: a fast typist."""
_CLEAR = "\x15"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatBenchConfig:
    """What is measured."""

    model: str | None = None
    """Name or directory; by default what the chat uses."""
    starts: int = 5
    keys: int = 100
    """Keys pressed while pictures are drawn."""
    previews: int = 30
    """Previews for each way of rendering."""
    pictures: int = 100
    """Pictures of the long dialogue; each is asked for in a turn and drawn in another."""

    def __post_init__(self) -> None:
        if min(self.starts, self.keys, self.previews, self.pictures) < 1:
            raise SettingsError(
                f"starts, keys, previews and pictures must be 1 or more, got {self.starts}, "
                f"{self.keys}, {self.previews} and {self.pictures}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatBench:
    """What was measured."""

    ready_seconds: float
    """From the start of the program to the echo of a first key; median."""
    loaded_seconds: float
    """From the start of the program to a loaded model; median."""
    num_starts: int
    echo_seconds: float
    """From a key to its echo while a picture is drawn; median."""
    echo_p95_seconds: float
    """The same at the 95th percentile."""
    num_keys: int
    repaints: tuple[RepaintCost, ...]
    memory: MemoryCost


def measure_chat(config: ChatBenchConfig, *, tell: Callable[[str], None]) -> ChatBench:
    """Measure everything; `tell` is told what comes next.

    Raises:
        MmgenError: the chat does not run here, or has no model.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tell("starting")
        starts = [_start(config, folder) for _ in range(config.starts)]
        tell("typing while pictures are drawn")
        echoes = _echoes(config, folder)
        repaints = []
        for graphics in GRAPHICS:
            tell(f"repainting as {graphics}")
            facts = _staged("repaint", graphics, config.previews, folder)
            repaints.append(RepaintCost(**facts))
        tell("a long dialogue")
        memory = MemoryCost(**_staged("memory", "half-block", config.pictures, folder))
    return ChatBench(
        ready_seconds=median(ready for ready, _ in starts),
        loaded_seconds=median(loaded for _, loaded in starts),
        num_starts=len(starts),
        echo_seconds=median(echoes),
        echo_p95_seconds=sorted(echoes)[math.ceil(0.95 * len(echoes)) - 1],
        num_keys=len(echoes),
        repaints=tuple(repaints),
        memory=memory,
    )


def _chat(config: ChatBenchConfig, folder: Path) -> ProgramInTerminal:
    words = [sys.executable, "-m", "mmgen", "chat", "--graphics", "half-block"]
    words += ["--database", str(folder / "chat.db")]
    words += ["--model", config.model] if config.model else []
    return ProgramInTerminal(words, folder=folder)


def _wait_for_model(program: ProgramInTerminal, config: ChatBenchConfig, since: int) -> None:
    if not program.has_written(_LOADED, since):
        program.until(_LOADED)
    if program.has_written(b"no model", since):
        raise ChatError(f"the chat cannot open {config.model or 'its model'}: {program.last_words}")


def _start(config: ChatBenchConfig, folder: Path) -> tuple[float, float]:
    """Return seconds to the first key's echo and to the loaded model."""
    with _chat(config, folder) as program:
        program.until(_PROMPT_MARK)
        # The prompt may be there a moment before it takes keys; a lost one is pressed again.
        end = time.perf_counter() + 60
        echo = _KEYS[0].encode()
        while not program.has_written(echo, 0) and time.perf_counter() < end:
            program.press(_KEYS[0])
            program.rest(0.05)
        ready = program.until(echo) if not program.has_written(echo, 0) else time.perf_counter()
        _wait_for_model(program, config, 0)
        return ready - program.started, time.perf_counter() - program.started


def _echoes(config: ChatBenchConfig, folder: Path) -> list[float]:
    """Return seconds from each key to its echo."""
    seconds: list[float] = []
    with _chat(config, folder) as program:
        program.until(_PROMPT_MARK)
        _wait_for_model(program, config, 0)
        idle = 0
        while len(seconds) < config.keys:
            before = len(seconds)
            since = program.num_bytes
            program.press("/draw a smiling face\r")
            program.until(_GROWING)
            # The sign of the start is itself a repaint, and keys come at any moment.
            program.rest(_PAUSE)
            for letter in islice(_KEYS, config.keys - len(seconds)):
                pressed = program.press(letter)
                echoed = program.until(letter.encode())
                if program.has_written(_DRAWN, since):
                    break
                seconds.append(echoed - pressed)
                program.rest(_PAUSE)
            idle = 0 if len(seconds) > before else idle + 1
            if idle == 5:
                raise ChatError("pictures are drawn too fast for a key to be pressed meanwhile")
            while not program.has_written(_DRAWN, since):
                program.rest(0.1)
            # The picture is also described before the chat is at rest. A new conversation has no
            # line of an earlier picture that could be taken for that of the next.
            program.rest(2.0)
            program.press(_CLEAR)
            program.rest(0.5)
            program.press("/new\r")
            program.rest(0.5)
    return seconds


def _staged(kind: str, graphics: str, count: int, folder: Path) -> dict[str, Any]:
    target = folder / f"{kind}-{graphics}.json"
    words = [sys.executable, "-m", "mmgen_chat.bench.stage", kind, graphics, str(count)]
    with ProgramInTerminal([*words, str(target)], folder=folder) as program:
        status = program.run_out(60 + 2 * count)
        if status != 0 or not target.exists():
            raise ChatError(f"measuring {kind} ended with {status}: {program.last_words}")
    facts: dict[str, Any] = json.loads(target.read_text(encoding="utf-8"))
    return facts
