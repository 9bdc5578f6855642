"""Which ids the cache holds: rows that prompts are read into, extended, moved and shared.

A row remembers its ids after its request is gone. A new prompt that begins like some row starts
from a copy of it, so that several samples of a prompt, or the spans of one turn, read what they
share once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from mmgen.model import Decoder, KVCache

__all__ = ["KVRows"]

MIN_SHARED = 8
"""Fewest ids in common for which copying a row beats reading the prompt."""


@dataclass(frozen=True, slots=True)
class _Reading:
    """A prompt on its way into a row: its first `start` ids are there already."""

    row: int
    ids: list[int]
    start: int

    @property
    def num_new(self) -> int:
        return len(self.ids) - self.start


class KVRows:
    """A KV cache that grows by rows and knows the ids in each."""

    def __init__(self, decoder: Decoder, *, max_prefill_ids: int) -> None:
        self._decoder = decoder
        self._max_prefill_ids = max_prefill_ids
        self._device = decoder.embedding.weight.device
        self._cache: KVCache | None = None
        self._ids: list[list[int]] = []

    def read_prompts(
        self, prompts: Sequence[list[int]], first_row: int
    ) -> tuple[list[int], torch.Tensor]:
        """Read prompts into the rows from `first_row` on, in an order that copies least.

        Returns:
            The row of each prompt, and the hidden states after the rows' last ids,
            `[prompts, hidden_size]`, in the order of the rows.
        """
        cache = self._with_rows(first_row + len(prompts))
        firsts: dict[tuple[int, ...], int] = {}
        for number, prompt in enumerate(prompts):
            firsts.setdefault(tuple(prompt), number)
        unique = list(firsts.values())
        rows = self._place({number: prompts[number] for number in unique}, first_row)
        free = iter(sorted(set(range(first_row, first_row + len(prompts))) - set(rows.values())))
        readings = self._share([(rows[number], prompts[number]) for number in unique])
        hidden = self._read(readings, cache)
        placed = []
        states: dict[int, torch.Tensor] = {}
        for number, prompt in enumerate(prompts):
            first = firsts[tuple(prompt)]
            row = rows[number] if first == number else next(free)
            if first != number:
                self._copy(rows[first], row, len(prompt))
            states[row] = hidden[rows[first]]
            placed.append(row)
        return placed, torch.stack([states[row] for row in sorted(states)])

    def extend(self, ids: list[int]) -> torch.Tensor:
        """Add one id to each of the first rows; return hidden states `[rows, hidden_size]`."""
        cache = self._with_rows(len(ids))
        lengths = [len(known) for known in self._ids[: len(ids)]]
        hidden = self._decoder.step(
            torch.tensor(ids, device=self._device).unsqueeze(1),
            cache,
            slice(0, len(ids)),
            torch.tensor(lengths, device=self._device),
        )
        for known, id_ in zip(self._ids, ids, strict=False):
            known.append(id_)
        return hidden[:, -1]

    def move(self, source: int, target: int) -> None:
        """Put a row in the place of another; where it was may be used for something else."""
        self._copy(source, target, len(self._ids[source]))

    def _copy(self, source: int, target: int, length: int) -> None:
        assert self._cache is not None
        self._cache.copy_row(source, target, length)
        self._ids[target] = self._ids[source][:length]

    def _with_rows(self, num_rows: int) -> KVCache:
        """Return the cache, with at least so many rows."""
        old = self._cache
        if old is not None and old.rows >= num_rows:
            return old
        config = self._decoder.config
        cache = KVCache.allocate(
            config,
            rows=max(num_rows, 2 * old.rows if old else 2),
            length=config.context_length,
            dtype=self._decoder.embedding.weight.dtype,
            device=self._device,
        )
        if old is not None:
            cache.entries[:, : old.rows] = old.entries
        self._ids += [[] for _ in range(cache.rows - len(self._ids))]
        self._cache = cache
        return cache

    def _place(self, prompts: dict[int, list[int]], first_row: int) -> dict[int, int]:
        """Return a row for each prompt, by number: if possible the free row that begins like it."""
        free = set(range(first_row, len(self._ids)))
        limit = first_row + len(prompts)
        rows: dict[int, int] = {}
        for number, prompt in prompts.items():
            row, length = self._best_match(prompt)
            if length and row in free and row < limit:
                rows[number] = row
                free.discard(row)
        left = iter(sorted(free))
        for number in prompts:
            if number not in rows:
                rows[number] = next(left)
        return rows

    def _share(self, placed: Sequence[tuple[int, list[int]]]) -> list[_Reading]:
        """Fill rows with what other rows already hold of their prompts."""
        readings = []
        for row, prompt in placed:
            source, length = self._best_match(prompt)
            # The last id is read in any case: what follows from it is wanted.
            start = min(length, len(prompt) - 1)
            if start and source != row:
                self._copy(source, row, start)
            readings.append(_Reading(row, prompt, start))
        for reading in readings:
            self._ids[reading.row] = list(reading.ids)
        return readings

    def _best_match(self, prompt: list[int]) -> tuple[int, int]:
        """Return the row that begins most like a prompt, and how many ids they share."""
        best, best_length = 0, 0
        opening = prompt[:MIN_SHARED]
        for row, ids in enumerate(self._ids):
            if ids[:MIN_SHARED] == opening:
                length = _shared(prompt, ids)
                if length > best_length:
                    best, best_length = row, length
        return best, best_length

    def _read(self, readings: list[_Reading], cache: KVCache) -> dict[int, torch.Tensor]:
        """Run the decoder over the new ids of prompts; return each row's last hidden state."""
        hidden: dict[int, torch.Tensor] = {}
        for chunk in self._chunks(readings, cache.length):
            width = max(reading.num_new for reading in chunk)
            new = [reading.ids[reading.start :] for reading in chunk]
            padded = [ids + [0] * (width - len(ids)) for ids in new]
            states = self._decoder.step(
                torch.tensor(padded, device=self._device),
                cache,
                torch.tensor([reading.row for reading in chunk], device=self._device),
                torch.tensor([reading.start for reading in chunk], device=self._device),
            )
            for reading, rows in zip(chunk, states, strict=True):
                hidden[reading.row] = rows[reading.num_new - 1]
        return hidden

    def _chunks(self, readings: list[_Reading], length: int) -> list[list[_Reading]]:
        """Divide prompts into passes of similar lengths that fit the cache and the limit."""
        chunks: list[list[_Reading]] = []
        for reading in sorted(readings, key=lambda item: (item.num_new, item.start, item.row)):
            chunk = [*chunks[-1], reading] if chunks else [reading]
            fits = (
                reading.num_new * len(chunk) <= self._max_prefill_ids
                and max(item.start for item in chunk) + reading.num_new <= length
            )
            if chunks and fits:
                chunks[-1] = chunk
            else:
                chunks.append([reading])
        return chunks


def _shared(left: list[int], right: list[int]) -> int:
    """Return how many ids two lists have in common at their starts, by bisection."""
    low, high = 0, min(len(left), len(right))
    while low < high:
        middle = (low + high + 1) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
