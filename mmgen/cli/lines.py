"""Lines on the terminal: one per message, safe to print, and not mixed up with a progress bar."""

from __future__ import annotations

import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

import click

from mmgen.errors import MmgenError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["AbstractBar", "complain", "one_line", "printable", "progress_bar", "shortened"]


class AbstractBar(ABC):
    """How far some work is."""

    @abstractmethod
    def advance(self, amount: float) -> None:
        """Count work as done."""

    @abstractmethod
    def aside(self) -> AbstractContextManager[None]:
        """Take the bar away while something else is printed."""


class _NoBar(AbstractBar):
    def advance(self, amount: float) -> None:
        pass

    @contextmanager
    def aside(self) -> Iterator[None]:
        yield


class _RichBar(AbstractBar):
    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def advance(self, amount: float) -> None:
        self._progress.advance(self._task, amount)

    @contextmanager
    def aside(self) -> Iterator[None]:
        self._progress.stop()
        try:
            yield
        finally:
            self._progress.start()


@contextmanager
def progress_bar(label: str, total: float) -> Iterator[AbstractBar]:
    """Give a bar that is shown where standard error is a terminal, and nowhere else."""
    if not sys.stderr.isatty():
        yield _NoBar()
        return
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    # Left to itself, rich would send what is meant for standard output to the bar's stream.
    with Progress(
        console=console, transient=True, redirect_stdout=False, redirect_stderr=False
    ) as progress:
        yield _RichBar(progress, progress.add_task(label, total=total))


def printable(text: str) -> str:
    """Return text as one line without anything that could command a terminal."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+", " ", text).strip()


def one_line(error: MmgenError) -> str:
    """Return an error's message as one line."""
    return printable(" ".join(str(error).split()))


def shortened(prompt: str) -> str:
    """Return a prompt in a form short enough for a message."""
    clean = printable(prompt.encode("utf-8", errors="replace").decode("utf-8"))
    return clean if len(clean) <= 60 else f"{clean[:59]}…"


def complain(what: str | None, error: MmgenError) -> None:
    """Print an error on standard error, with what it is about."""
    place = f"{what}: " if what else ""
    click.echo(f"mmgen: error: {place}{one_line(error)}", err=True)
