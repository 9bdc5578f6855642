"""How long work reports on itself: a bar on a terminal, plain lines elsewhere, or nothing.

The library itself writes to no stream; whoever calls it passes one of these.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

__all__ = ["AbstractProgress", "BarProgress", "LineProgress", "SilentProgress", "open_progress"]


class AbstractProgress(ABC):
    """Receives the course of one piece of work after another."""

    @abstractmethod
    def begin(self, title: str) -> None:
        """Start a piece of work; the former one has ended."""

    @abstractmethod
    def update(self, share: float, detail: str) -> None:
        """Take how much is done, 0..1, and one line on how it goes."""

    @abstractmethod
    def note(self, text: str) -> None:
        """Take one line worth keeping."""

    @abstractmethod
    def end(self) -> None:
        """Finish the piece of work, whether or not it is done."""


class SilentProgress(AbstractProgress):
    """Drops everything."""

    def begin(self, title: str) -> None:
        pass

    def update(self, share: float, detail: str) -> None:
        pass

    def note(self, text: str) -> None:
        pass

    def end(self) -> None:
        pass


class LineProgress(AbstractProgress):
    """Writes plain lines, at most one update every `seconds`."""

    def __init__(self, stream: TextIO, *, seconds: float = 10.0) -> None:
        self._stream = stream
        self._seconds = seconds
        self._last = float("-inf")

    def begin(self, title: str) -> None:
        self._last = float("-inf")
        self.note(title)

    def update(self, share: float, detail: str) -> None:
        now = time.monotonic()
        if now - self._last >= self._seconds or share >= 1.0:
            self._last = now
            self.note(f"  {share:6.1%}  {detail}")

    def note(self, text: str) -> None:
        self._stream.write(text + "\n")
        self._stream.flush()

    def end(self) -> None:
        pass


class BarProgress(AbstractProgress):
    """Draws a bar on a terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar: Progress | None = None
        self._task = TaskID(0)

    def begin(self, title: str) -> None:
        self.end()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[detail]}"),
            console=self._console,
        )
        self._bar.start()
        self._task = self._bar.add_task(title, total=1.0, detail="")

    def update(self, share: float, detail: str) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=share, detail=detail)

    def note(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False)

    def end(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def open_progress(stream: TextIO) -> AbstractProgress:
    """Return a bar if `stream` is a terminal, lines otherwise."""
    console = Console(file=stream)
    return BarProgress(console) if console.is_terminal else LineProgress(stream)
