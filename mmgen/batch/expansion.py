"""One row as several: every combination of a grid of settings, and so many samples of each.

The rows that come of it are rows like any others, each with an id, a seed and a result of its own.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mmgen.batch.fields import integer
from mmgen.batch.readers import AbstractReader
from mmgen.batch.rows import BrokenRow, InputRow, Row
from mmgen.errors import SettingsError

__all__ = ["ExpandedReader", "Expansion", "parse_grid"]

MAX_VARIANTS = 10_000
"""Most rows that one row may become."""
GRID_FIELDS = ("guidance", "negative", "size", "temperature", "top_k", "top_p", "tokenizer")
"""Settings that a grid may vary."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expansion:
    """What each row becomes."""

    number: int = 1
    """Samples of each combination; a row's field `n` counts more."""
    grid: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Values by setting; every combination is taken."""

    def __post_init__(self) -> None:
        if self.number < 1:
            raise SettingsError(f"the number of samples must be 1 or more, got {self.number}")
        self._check(self.number)

    def rows(self, row: Row) -> list[Row]:
        """Return what a row becomes; their places in the input are still the row's own.

        Raises:
            SettingsError: its `n` is no number of samples.
        """
        number = integer(row, "n")
        if number is not None and number < 1:
            raise SettingsError(f"n must be 1 or more, got {number}")
        number = number or self.number
        self._check(number)
        seed = integer(row, "seed")
        rows = []
        kept = {name: value for name, value in row.fields.items() if name != "n"}
        for choice in itertools.product(*self.grid.values()):
            settings = dict(zip(self.grid, choice, strict=True))
            marks = [f"{name}={value}" for name, value in settings.items()]
            for sample in range(number):
                fields: dict[str, Any] = {**kept, **settings}
                if seed is not None:
                    fields["seed"] = seed + sample
                own = [*marks, *([f"n={sample + 1}"] if number > 1 else [])]
                id_ = f"{row.id} [{' '.join(own)}]" if own else row.id
                rows.append(replace(row, id=id_, fields=fields))
        return rows

    def _check(self, number: int) -> None:
        total = number
        for values in self.grid.values():
            total *= len(values)
        if total > MAX_VARIANTS:
            raise SettingsError(
                f"one row would become {total:,}; at most {MAX_VARIANTS:,} are taken"
            )


class ExpandedReader(AbstractReader):
    """The rows of another reader, each as several."""

    def __init__(self, reader: AbstractReader, expansion: Expansion) -> None:
        self._reader = reader
        self._expansion = expansion

    @property
    def kind(self) -> str:
        return self._reader.kind

    @property
    def places(self) -> tuple[str, ...]:
        return self._reader.places

    def rows(self) -> Iterator[InputRow]:
        index = 0
        for row in self._reader.rows():
            for made in self._made(row):
                yield replace(made, index=index)
                index += 1

    def _made(self, row: InputRow) -> Sequence[InputRow]:
        if isinstance(row, BrokenRow):
            return [row]
        try:
            return self._expansion.rows(row)
        except SettingsError as error:
            return [BrokenRow(index=row.index, id=row.id, reason=str(error))]


def parse_grid(texts: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the values of a grid that is written as `guidance=1,3,5`."""
    grid: dict[str, tuple[str, ...]] = {}
    for text in texts:
        name, equals, rest = text.partition("=")
        values = tuple(value.strip() for value in rest.split(","))
        if not equals or name not in GRID_FIELDS or not all(values):
            raise SettingsError(
                f"a grid is like guidance=1,3,5, for {', '.join(GRID_FIELDS)}; got {text!r}"
            )
        if name in grid:
            raise SettingsError(f"the grid has {name} twice; write its values in one")
        if len(set(values)) < len(values):
            raise SettingsError(f"the grid has the same value of {name} twice: {rest}")
        grid[name] = values
    return grid
