"""Byte-pair merges: learned as counting says, applied without loss, undone to any length."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmgen.wrapping.merging import Merges, learn_merges

RUNS = np.array([[0, 0, 0, 0, 1, 2], [0, 0, 1, 2, 1, 2], [3, 1, 2, 0, 0, 0]])


def learned_slowly(
    sequences: list[list[int]], num_codes: int, num_merges: int, max_length: int
) -> list[tuple[int, int]]:
    """Learn merges as the definition says: count all pairs anew before each merge."""
    rows = [list(row) for row in sequences]
    lengths = [1] * num_codes
    pairs: list[tuple[int, int]] = []
    while len(pairs) < num_merges:
        counts: Counter[tuple[int, int]] = Counter()
        for row in rows:
            counts.update(pairwise(row))
        fitting = {
            pair: count
            for pair, count in counts.items()
            if lengths[pair[0]] + lengths[pair[1]] <= max_length and count >= 2
        }
        if not fitting:
            break
        best = min(fitting, key=lambda pair: (-fitting[pair], pair))
        pairs.append(best)
        lengths.append(lengths[best[0]] + lengths[best[1]])
        for index, row in enumerate(rows):
            merged: list[int] = []
            place = 0
            while place < len(row):
                if tuple(row[place : place + 2]) == best:
                    merged.append(num_codes + len(pairs) - 1)
                    place += 2
                else:
                    merged.append(row[place])
                    place += 1
            rows[index] = merged
    return pairs


def test_the_most_frequent_pair_is_merged_first() -> None:
    merges = learn_merges(RUNS, num_codes=4, num_merges=2, max_length=8)
    assert merges.pairs.tolist() == [[0, 0], [1, 2]]
    assert merges.expansions[4:] == [(0, 0), (1, 2)]
    assert merges.apply([0, 0, 0, 1, 2]) == [4, 0, 5]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_learning_in_place_is_learning_by_counting(seed: int) -> None:
    # Pairs that overlap in a run of equal codes are counted once each by both.
    random = np.random.default_rng(seed)
    sequences = random.integers(0, 5, (6, 10))
    merges = learn_merges(sequences, num_codes=5, num_merges=12, max_length=6)
    slow = learned_slowly(sequences.tolist(), 5, 12, 6)
    assert [tuple(pair) for pair in merges.pairs.tolist()] == slow


def test_nothing_rare_or_long_is_merged() -> None:
    assert len(learn_merges(RUNS, num_codes=4, num_merges=99, max_length=2).pairs) == 2
    few = learn_merges(RUNS, num_codes=4, num_merges=99, max_length=16, min_count=4)
    assert few.pairs.tolist() == [[0, 0], [1, 2]]
    every = learn_merges(RUNS, num_codes=4, num_merges=99, max_length=3, min_count=1)
    assert max(map(len, every.expansions)) == 3


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=20), st.data())
def test_merging_loses_nothing_at_any_length(codes: list[int], data: st.DataObject) -> None:
    merges = learn_merges(RUNS, num_codes=4, num_merges=9, max_length=8)
    symbols = merges.apply(codes)
    assert merges.expand(symbols) == codes
    length = data.draw(st.integers(len(symbols), len(codes)))
    longer = merges.lengthened(symbols, length)
    assert len(longer) == length and merges.expand(longer) == codes


def test_merges_of_what_does_not_exist_are_refused() -> None:
    with pytest.raises(ValueError, match="symbols that exist before it"):
        Merges(4, np.array([[0, 4]]))
    with pytest.raises(ValueError, match="same pair"):
        Merges(4, np.array([[0, 1], [0, 1]]))
