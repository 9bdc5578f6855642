"""Documents into rows of one length with little padding, and randomness that depends on counters.

Both are pure functions of their arguments: the loader's exact resumption rests on that.
"""

from __future__ import annotations

from bisect import bisect_left, insort

import numpy as np
import numpy.typing as npt

__all__ = ["pack", "uniform"]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def pack(lengths: npt.NDArray[np.int64], capacity: int) -> list[list[int]]:
    """Return rows of document indices by best fit, the longest documents first.

    Args:
        lengths: number of ids of each document, none above `capacity`.
        capacity: number of ids in a row.
    """
    assert lengths.size == 0 or lengths.max() <= capacity, "a document is longer than a row"
    rows: list[list[int]] = []
    spaces: list[tuple[int, int]] = []
    for index in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[index])
        place = bisect_left(spaces, (length, -1))
        if place < len(spaces):
            space, row = spaces.pop(place)
            rows[row].append(index)
        else:
            space, row = capacity, len(rows)
            rows.append([index])
        if space > length:
            insort(spaces, (space - length, row))
    return rows


def uniform(seed: int, *counters: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return a number in [0, 1) for each combination of counters, which broadcast."""
    state = np.atleast_1d(np.asarray(seed & 0xFFFFFFFFFFFFFFFF, dtype=np.uint64))
    for counter in counters:
        state = _mix(state) ^ np.asarray(counter).astype(np.uint64)
    return (_mix(state) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(state: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """SplitMix64's finaliser: every input bit reaches every output bit."""
    state = state + _GOLDEN
    state = (state ^ (state >> np.uint64(30))) * _MIX_1
    state = (state ^ (state >> np.uint64(27))) * _MIX_2
    return state ^ (state >> np.uint64(31))
