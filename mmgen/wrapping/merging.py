"""Byte-pair merges of code sequences: learned from sequences, applied, and undone.

A symbol below the size of the wrapped codebook is a code of it; every merge adds one symbol, which
stands for two earlier ones side by side (Sennrich et al., 2016; on codes of pictures, Zhang et al.,
"From Pixels to Tokens", 2024).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

__all__ = ["Merges", "learn_merges"]

Merge = tuple[int, int]

_BREAK = -1
"""Stands between the sequences, and merges with nothing."""


class Merges:
    """Merges over a codebook, in the order in which they were learned."""

    def __init__(self, num_codes: int, pairs: npt.NDArray[np.integer]) -> None:
        """Take the size of the codebook and `[merges, 2]` symbols.

        Raises:
            ValueError: a merge is of symbols that do not exist before it.
        """
        self.num_codes = num_codes
        self.pairs = pairs.astype(np.int64).reshape(-1, 2)
        latest = num_codes + np.arange(len(self.pairs))[:, np.newaxis]
        if (self.pairs < 0).any() or (self.pairs >= latest).any():
            raise ValueError("a merge is of two symbols that exist before it")
        self._ranks = {(int(a), int(b)): rank for rank, (a, b) in enumerate(self.pairs)}
        if len(self._ranks) < len(self.pairs):
            raise ValueError("two merges are of the same pair")
        self.expansions: list[tuple[int, ...]] = [(code,) for code in range(num_codes)]
        """The codes that each symbol stands for."""
        for left, right in self.pairs:
            self.expansions.append(self.expansions[left] + self.expansions[right])

    @property
    def num_symbols(self) -> int:
        return len(self.expansions)

    def apply(self, codes: Sequence[int]) -> list[int]:
        """Return the symbols of codes: the earliest learned merge first, left to right."""
        symbols = list(codes)
        while len(symbols) > 1:
            ranks = [
                (self._ranks[pair], place)
                for place, pair in enumerate(pairwise(symbols))
                if pair in self._ranks
            ]
            if not ranks:
                break
            rank = min(ranks)[0]
            left, right = self.pairs[rank].tolist()
            merged: list[int] = []
            place = 0
            while place < len(symbols):
                if symbols[place : place + 2] == [left, right]:
                    merged.append(self.num_codes + rank)
                    place += 2
                else:
                    merged.append(symbols[place])
                    place += 1
            symbols = merged
        return symbols

    def expand(self, symbols: Sequence[int]) -> list[int]:
        """Return the codes that symbols stand for."""
        return [code for symbol in symbols for code in self.expansions[symbol]]

    def lengthened(self, symbols: Sequence[int], length: int) -> list[int]:
        """Return the same codes as so many symbols, by undoing the latest merges first.

        Args:
            length: between the number of symbols and that of their codes.
        """
        found = list(symbols)
        while len(found) < length:
            latest = max(range(len(found)), key=lambda place: found[place])
            assert found[latest] >= self.num_codes, "codes themselves cannot be split"
            found[latest : latest + 1] = self.pairs[found[latest] - self.num_codes].tolist()
        return found


@dataclass(slots=True)
class _Corpus:
    """Symbols in one row, linked to their neighbours, so that a merge costs what it changes."""

    symbols: list[int]
    before: list[int]
    after: list[int]
    places: dict[Merge, set[int]]

    def pairs_at(self, place: int) -> Iterator[tuple[int, Merge]]:
        """Yield the pairs that a place is part of, with where they begin."""
        left, right = self.before[place], self.after[place]
        if left >= 0 and self.symbols[left] != _BREAK:
            yield left, (self.symbols[left], self.symbols[place])
        if right < len(self.symbols) and self.symbols[right] != _BREAK:
            yield place, (self.symbols[place], self.symbols[right])


def learn_merges(
    sequences: npt.NDArray[np.integer],
    *,
    num_codes: int,
    num_merges: int,
    max_length: int,
    min_count: int = 2,
) -> Merges:
    """Learn merges from codes `[sequences, length]`, the most frequent pair first.

    Of equally frequent pairs, the one of the smaller symbols is taken, so that equal sequences give
    equal merges.

    Args:
        num_codes: size of the codebook.
        num_merges: at most so many.
        max_length: codes that a symbol may stand for at most.
        min_count: how often a pair must occur to be merged.
    """
    corpus = _linked(sequences)
    lengths = [1] * num_codes
    heap = [(-len(found), pair) for pair, found in corpus.places.items()]
    heapq.heapify(heap)
    pairs: list[Merge] = []
    while heap and len(pairs) < num_merges:
        count, pair = heapq.heappop(heap)
        found = corpus.places.get(pair)
        if not found or -count < min_count or sum(lengths[item] for item in pair) > max_length:
            continue
        if len(found) != -count:
            # Counts change as neighbours are merged; the heap learns of it when it matters.
            heapq.heappush(heap, (-len(found), pair))
            continue
        symbol = num_codes + len(pairs)
        changed = _merge(corpus, pair, symbol)
        lengths.append(sum(lengths[item] for item in pair))
        pairs.append(pair)
        for item in changed:
            heapq.heappush(heap, (-len(corpus.places.get(item, ())), item))
    return Merges(num_codes, np.array(pairs, dtype=np.int64).reshape(-1, 2))


def _linked(sequences: npt.NDArray[np.integer]) -> _Corpus:
    num_sequences, _ = sequences.shape
    breaks = np.full((num_sequences, 1), _BREAK)
    symbols = np.concatenate([breaks, sequences], axis=1).reshape(-1).tolist()
    places: dict[Merge, set[int]] = {}
    for place, pair in enumerate(pairwise(symbols)):
        if _BREAK not in pair:
            places.setdefault(pair, set()).add(place)
    return _Corpus(
        symbols, list(range(-1, len(symbols) - 1)), list(range(1, len(symbols) + 1)), places
    )


def _merge(corpus: _Corpus, pair: Merge, symbol: int) -> set[Merge]:
    """Replace every occurrence of a pair; return the pairs that are new around it."""
    changed: set[Merge] = set()
    symbols, before, after = corpus.symbols, corpus.before, corpus.after
    for place in sorted(corpus.places[pair]):
        right = after[place]
        # In a run of equal symbols, the merge before may have taken one of these.
        if right >= len(symbols) or (symbols[place], symbols[right]) != pair:
            continue
        for start, old in (*corpus.pairs_at(place), *corpus.pairs_at(right)):
            corpus.places[old].discard(start)
        symbols[place] = symbol
        symbols[right] = _BREAK - 1
        after[place] = after[right]
        if after[right] < len(symbols):
            before[after[right]] = place
        for start, new in corpus.pairs_at(place):
            corpus.places.setdefault(new, set()).add(start)
            changed.add(new)
    corpus.places.pop(pair, None)
    return changed
