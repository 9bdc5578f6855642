"""Packing loses nothing, wastes little, and chance depends on counters alone."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mmgen.data.packing import pack, uniform


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 64), max_size=200))
def test_every_document_is_packed_once_and_fits(lengths: list[int]) -> None:
    rows = pack(np.array(lengths, dtype=np.int64), 64)
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    sums = [sum(lengths[index] for index in row) for row in rows]
    assert all(0 < total <= 64 for total in sums)
    assert sum(total <= 32 for total in sums) <= 1


def test_takes_the_tightest_row() -> None:
    lengths = np.array([6, 5, 4, 5, 3], dtype=np.int64)
    assert pack(lengths, 10) == [[0, 2], [1, 3], [4]]


def test_fills_rows_nearly_whole() -> None:
    lengths = np.random.default_rng(0).integers(40, 300, size=2000)
    rows = pack(lengths, 1024)
    assert lengths.sum() / (len(rows) * 1024) > 0.99


def test_uniform_is_a_function_of_its_counters() -> None:
    numbers = np.arange(10_000)
    first = uniform(7, 1, numbers)
    assert np.array_equal(first[5000:], uniform(7, 1, numbers[5000:]))
    assert 0 <= first.min() and first.max() < 1
    assert abs(first.mean() - 0.5) < 0.02
    for other in (uniform(8, 1, numbers), uniform(7, 2, numbers), uniform(7, numbers, 1)):
        assert abs(np.corrcoef(first, other)[0, 1]) < 0.05
