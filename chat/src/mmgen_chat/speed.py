"""How fast an answer comes, in tokens per second."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable

__all__ = ["Speed"]


class Speed:
    """Counts tokens of one answer, or of several at once."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._first: float | None = None
        self._count = 0
        self._reached: dict[Hashable, int] = {}

    def count(self, number: int) -> float | None:
        """Take note of more tokens; return the speed, None before there is a time to divide by."""
        now = self._clock()
        if self._first is None:
            # What came before the first moment has no duration.
            self._first = now
            return None
        self._count += number
        return self._count / (now - self._first) if now > self._first else None

    def reach(self, what: Hashable, done: int) -> float | None:
        """Take note of how many tokens a picture has now; return the speed."""
        new = done - self._reached.get(what, 0)
        self._reached[what] = done
        return self.count(new)
