"""What replicas have in the works, where every process of one server can read it at any time.

A few bytes of a file that all of them map: each replica writes its own number, routers read all of
them. So routing needs no messages, however many routers there are, and counts what one request asks
for as what it is.
"""

from __future__ import annotations

import mmap
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import final

__all__ = ["ABSENT", "Board"]

ABSENT = -1
"""Stands for a replica that serves nothing: not yet, or not any more."""


@final
class Board:
    """One number per replica: the turns it has in the works, or `ABSENT`."""

    def __init__(self, path: Path) -> None:
        """Open a board that `create` made."""
        with path.open("r+b") as file:
            self._bytes = mmap.mmap(file.fileno(), 0)
        # Aligned words of eight bytes, which are read and written whole.
        self._numbers = memoryview(self._bytes).cast("q")

    @classmethod
    def create(cls, path: Path, num_replicas: int) -> Board:
        """Make a board on which all replicas are absent."""
        path.write_bytes(ABSENT.to_bytes(8, byteorder=sys.byteorder, signed=True) * num_replicas)
        return cls(path)

    def write(self, replica: int, number: int) -> None:
        """Say what a replica has in the works."""
        self._numbers[replica] = number

    def read(self) -> Sequence[int]:
        """Return what every replica has in the works."""
        return self._numbers.tolist()

    def close(self) -> None:
        """Let go of the file."""
        self._numbers.release()
        self._bytes.close()
