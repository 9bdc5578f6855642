"""How many turns are in the works, and what those that come on top are told."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import TracebackType
from typing import Self

from mmgen.serve.refusals import Refusal

__all__ = ["Admission", "Place"]

FIRST_GUESS = 1.0
"""Seconds that a turn is thought to take before any has finished."""


class Admission:
    """Room for a number of turns. Used from one event loop."""

    def __init__(self, max_turns: int, report: Callable[[int], None] = lambda turns: None) -> None:
        """Start empty.

        Args:
            report: told how many turns have a place, whenever that changes.
        """
        self._max_turns = max_turns
        self._report = report
        self._num_turns = 0
        self._seconds = FIRST_GUESS

    @property
    def num_turns(self) -> int:
        """Turns that have a place."""
        return self._num_turns

    def enter(self) -> Place:
        """Give a request a place for one turn.

        Raises:
            Refusal: there is none; the client may come again.
        """
        place = Place(self)
        place.grow(1)
        return place

    def take(self, number: int) -> None:
        """Give up room for some turns."""
        if self._num_turns + number > self._max_turns:
            raise Refusal(
                f"the server is busy: {self._num_turns} of {self._max_turns} answers and pictures "
                f"are in the works, and {number} more are asked for; try again later",
                status=429,
                code="rate_limit_exceeded",
                retry_after=max(1, min(60, math.ceil(self._seconds))),
            )
        self._num_turns += number
        self._report(self._num_turns)

    def give_back(self, number: int) -> None:
        """Take room back."""
        self._num_turns -= number
        self._report(self._num_turns)

    def note(self, seconds: float) -> None:
        """Learn how long a turn took, for what those who are turned away are told."""
        self._seconds += (seconds - self._seconds) / 8


class Place:
    """The room that one request has, until it leaves."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._number = 0

    def grow(self, number: int) -> None:
        """Take room for more turns, or raise the refusal."""
        self._admission.take(number)
        self._number += number

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._admission.give_back(self._number)
        self._number = 0
