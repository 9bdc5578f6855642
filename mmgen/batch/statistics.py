"""What a job's results look like in numbers: histograms, counts, examples of errors.

The log is read twice and nothing of it is kept, so a large job needs no more memory than a small
one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from mmgen.batch.log import Record

__all__ = ["Histogram", "Statistics", "statistics_of"]

NUM_BINS = 20
MAX_VALUES = 12
"""Different values of a text that are counted one by one."""
MAX_EXAMPLES = 10
_NOT_MEASURED = frozenset({"seed", "top_k", "top_p"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """How often a number lies where."""

    name: str
    low: float
    high: float
    """The largest value, which the last bin holds."""
    mean: float
    counts: tuple[int, ...]
    """In bins of equal width."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """What was found in a job's records."""

    num_answered: int
    num_failed: int
    histograms: tuple[Histogram, ...]
    values: Mapping[str, Mapping[str, int]]
    """How often texts of few different values occur."""
    faults: Mapping[str, int]
    examples: tuple[tuple[str, str, str], ...]
    """Id, kind and reason of some rows without an answer."""

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)


@dataclass(slots=True)
class _Extent:
    low: float = math.inf
    high: float = -math.inf
    total: float = 0.0
    count: int = 0

    def add(self, value: float) -> None:
        self.low, self.high = min(self.low, value), max(self.high, value)
        self.total += value
        self.count += 1


def statistics_of(records: Callable[[], Iterator[Record]], words: str) -> Statistics:
    """Return what records say together.

    Args:
        records: yields all of them, as often as it is called.
        words: the field that is a result's text; its words are counted.
    """
    extents: dict[str, _Extent] = {}
    values: dict[str, Counter[str]] = {}
    faults: Counter[str] = Counter()
    examples: list[tuple[str, str, str]] = []
    num_answered = 0
    for record in records():
        if record.fault is not None:
            faults[record.fault.kind] += 1
            if len(examples) < MAX_EXAMPLES:
                examples.append((record.id, record.fault.kind, record.fault.reason))
            continue
        num_answered += 1
        for name, number in _numbers(record, words):
            extents.setdefault(name, _Extent()).add(number)
        for name, value in record.fields.items():
            if isinstance(value, str) and name != words:
                counted = values.setdefault(name, Counter())
                if len(counted) <= MAX_VALUES:
                    counted[value] += 1
    bins = {name: [0] * NUM_BINS for name, extent in extents.items() if extent.high > extent.low}
    for record in records():
        for name, number in _numbers(record, words) if record.fault is None else ():
            if name in bins:
                extent = extents[name]
                share = (number - extent.low) / (extent.high - extent.low)
                bins[name][min(int(share * NUM_BINS), NUM_BINS - 1)] += 1
    return Statistics(
        num_answered=num_answered,
        num_failed=sum(faults.values()),
        histograms=tuple(
            Histogram(
                name=name,
                low=extents[name].low,
                high=extents[name].high,
                mean=extents[name].total / extents[name].count,
                counts=tuple(counts),
            )
            for name, counts in bins.items()
        ),
        values={
            name: dict(counted.most_common())
            for name, counted in values.items()
            if 1 < len(counted) <= MAX_VALUES
        },
        faults=dict(faults.most_common()),
        examples=tuple(examples),
    )


def _numbers(record: Record, words: str) -> Iterator[tuple[str, float]]:
    text = record.fields.get(words)
    if isinstance(text, str):
        yield f"words of {words}", len(text.split())
    for name, value in record.fields.items():
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if is_number and name not in _NOT_MEASURED and math.isfinite(value):
            yield name, value
