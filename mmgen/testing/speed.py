"""The speed card: pictures per second, one at a time and many at a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from mmgen.testing.report import Operation, Speed
from mmgen.testing.subject import Check, Fault, Subject, decode, encode

__all__ = ["SPEED_CHECKS"]

BATCH_SIZE = 64
SLOW_BATCH_SIZE = 8
"""The batch of a tokenizer that takes more than a quarter of a second for a picture."""

MAX_SLOWDOWN = 10.0
"""How much slower a picture may be in a batch than alone."""

_SLOW_SECONDS = 0.25
_BUDGET_SECONDS = 0.25
_MAX_CALLS = 50


@dataclass(frozen=True, slots=True)
class _Timing:
    """One batch size of one operation."""

    speed: Speed
    processor_seconds: float
    """Processor time for a picture: unlike wall time, the same on a busy machine."""


def _speed(subject: Subject) -> str:
    tokenizer = subject.tokenizer
    size = subject.sizes[0]
    pictures = [picture for picture in subject.mixed if picture.shape[:2] == size]
    pictures = (pictures * BATCH_SIZE)[:BATCH_SIZE]
    codes = encode(tokenizer, pictures[:1]) * BATCH_SIZE
    for pair in (
        _time_pair("encode", lambda count: encode(tokenizer, pictures[:count])),
        _time_pair("decode", lambda count: decode(tokenizer, codes[:count])),
    ):
        subject.speeds += tuple(timing.speed for timing in pair)
        alone, together = pair
        slowdown = together.processor_seconds / alone.processor_seconds
        if slowdown > MAX_SLOWDOWN:
            raise Fault(
                f"{alone.speed.operation} takes {slowdown:.0f} times longer for a picture among "
                f"{together.speed.batch_size} than for one alone"
            )
    return "a picture in a batch takes no longer than alone, within a factor of 10"


def _time_pair(operation: Operation, work: Callable[[int], object]) -> tuple[_Timing, _Timing]:
    alone = _time(operation, 1, work)
    is_slow = alone.speed.images_per_second < 1 / _SLOW_SECONDS
    return alone, _time(operation, SLOW_BATCH_SIZE if is_slow else BATCH_SIZE, work)


def _time(operation: Operation, batch_size: int, work: Callable[[int], object]) -> _Timing:
    """Time calls after a first one, as many as fit the budget and one at least."""
    work(batch_size)
    wall: list[float] = []
    processor: list[float] = []
    while not wall or (sum(wall) < _BUDGET_SECONDS and len(wall) < _MAX_CALLS):
        starts = time.perf_counter(), time.process_time()
        work(batch_size)
        wall.append(time.perf_counter() - starts[0])
        processor.append(time.process_time() - starts[1])
    return _Timing(
        Speed(
            operation=operation, batch_size=batch_size, images_per_second=batch_size / median(wall)
        ),
        median(processor) / batch_size,
    )


SPEED_CHECKS = (
    Check(
        name="speed",
        tried="time encode and decode, one picture at a time and many at a time",
        remedy="work on the batch at once, or on one picture after another; not on all for each",
        run=_speed,
    ),
)
