"""How long work shows its progress: bars on a terminal, one line per stage anywhere else."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TypeVar

import click

__all__ = ["watched"]

Item = TypeVar("Item")


def watched(items: Sequence[Item], label: str) -> Iterator[Item]:
    """Give the items one by one and show on standard error how many have been taken."""
    if not sys.stderr.isatty():
        click.echo(f"{label} ({len(items)})", err=True)
        yield from items
        return
    from rich.console import Console
    from rich.progress import track

    yield from track(items, label, console=Console(stderr=True), transient=True)
