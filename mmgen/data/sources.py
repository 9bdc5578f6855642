"""Where training rows come from: what a source promises, and Parquet packs.

A source has a fixed number of rows in a fixed order and gives any of them by its index, so that
preparation can stop anywhere and go on. A row that cannot be read raises when it is asked for,
and the others stay readable.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mmgen.errors import DataError
from mmgen.pictures import PictureSource

__all__ = ["AbstractSource", "ParquetSource", "Row", "Share", "open_parquet"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What a source knows of one picture or one text.

    Attributes that templates understand: `name` (a bare noun), `phrase` (with its article),
    `style`, `visual` (what the style looks like), `kind`, `subkind`, `tone`, `colour`, `shape`,
    `count`, `size`, `position`, `background`. Others are kept and ignored.
    """

    id: str
    picture: PictureSource | None = None
    captions: tuple[str, ...] = ()
    attributes: Mapping[str, str] = field(default_factory=dict)
    text: str | None = None
    """A document of plain text, for rows without a picture."""


@dataclass(frozen=True, slots=True)
class Share:
    """A row's place among rows that take turns, so that together they count as one."""

    group: int
    rank: int
    size: int


class AbstractSource(ABC):
    """Rows in a fixed order."""

    @property
    @abstractmethod
    def num_rows(self) -> int:
        """How many rows there are, readable or not."""

    @property
    @abstractmethod
    def description(self) -> Mapping[str, object]:
        """What decides the rows, as JSON values; preparation goes on only if it is unchanged."""

    @abstractmethod
    def row(self, index: int) -> Row:
        """Return one row.

        Raises:
            DataError: this row cannot be read.
        """

    def attributes(self, index: int) -> Mapping[str, str]:
        """Return the attributes of one row without its picture; {} if that would be slow."""
        return {}

    def share(self, index: int) -> Share:
        """Return with which rows a row takes turns; alone by default."""
        return Share(group=index, rank=0, size=1)


class ParquetSource(AbstractSource):
    """Rows of a Parquet file with a binary column of pictures."""

    def __init__(
        self,
        path: Path,
        *,
        picture_column: str,
        caption_columns: Sequence[str] = (),
        attributes: Mapping[str, str] | None = None,
        constants: Mapping[str, str] | None = None,
        filters: Mapping[str, Sequence[str]] | None = None,
        balance: Sequence[str] = (),
        id_column: str | None = None,
    ) -> None:
        """Open a file and choose its rows.

        Args:
            path: the Parquet file.
            picture_column: encoded pictures: binary, or Hugging Face's struct with `bytes`.
            caption_columns: text columns, each giving one caption; nulls are left out.
            attributes: attribute name to column; empty values are left out.
            constants: attribute name to the value that every row has.
            filters: column to the values of which a row must have one.
            balance: rows equal in all these columns take turns instead of each counting in full.
            id_column: names the rows in reports; by default `id` if there is one, else the index.
        """
        self._file = open_parquet(path)
        named = self._file.schema_arrow.names
        self._picture_column = picture_column
        self._captions = tuple(caption_columns)
        self._attributes = dict(attributes or {})
        self._constants = dict(constants or {})
        self._id_column = id_column or ("id" if "id" in named else None)
        chosen = {column: tuple(values) for column, values in (filters or {}).items()}
        small = [*self._captions, *self._attributes.values(), *chosen, *balance]
        if self._id_column is not None:
            small.append(self._id_column)
        missing = sorted({picture_column, *small} - set(named))
        if missing:
            raise DataError(
                f"{path} has no column {', '.join(missing)}; its columns are {', '.join(named)}"
            )
        table = self._file.read(columns=list(dict.fromkeys(small)))
        self._places = _matching(table, chosen, path)
        table = table.take(pa.array(self._places))
        self._columns = {name: table.column(name).to_pylist() for name in table.column_names}
        self._shares = _shares([self._columns[column] for column in balance])
        groups = range(self._file.num_row_groups)
        sizes = [self._file.metadata.row_group(group).num_rows for group in groups]
        self._group_starts = np.cumsum([0, *sizes])
        self._cached: tuple[int, pa.ChunkedArray] | None = None
        self._description = {
            "kind": "parquet",
            "file": path.name,
            "bytes": path.stat().st_size,
            "picture_column": picture_column,
            "caption_columns": list(self._captions),
            "attributes": self._attributes,
            "constants": self._constants,
            "filters": {column: list(values) for column, values in chosen.items()},
            "balance": list(balance),
        }

    @property
    def num_rows(self) -> int:
        return len(self._places)

    @property
    def description(self) -> Mapping[str, object]:
        return self._description

    def row(self, index: int) -> Row:
        picture = self._picture(int(self._places[index]))
        if picture is None:
            raise DataError(f"row {self._id(index)} has no picture in {self._picture_column}")
        captions = (self._value(column, index) for column in self._captions)
        return Row(
            id=self._id(index),
            picture=picture,
            captions=tuple(dict.fromkeys(caption for caption in captions if caption)),
            attributes=self.attributes(index),
        )

    def attributes(self, index: int) -> Mapping[str, str]:
        values = {name: self._value(column, index) for name, column in self._attributes.items()}
        return {**self._constants, **{name: value for name, value in values.items() if value}}

    def share(self, index: int) -> Share:
        return self._shares[index] if self._shares else super().share(index)

    def _id(self, index: int) -> str:
        return self._value(self._id_column, index) if self._id_column else str(index)

    def _value(self, column: str, index: int) -> str:
        value = self._columns[column][index]
        if isinstance(value, list):
            return ", ".join(map(str, value))
        return "" if value is None else str(value)

    def _picture(self, place: int) -> bytes | None:
        group = int(np.searchsorted(self._group_starts, place, side="right")) - 1
        if self._cached is None or self._cached[0] != group:
            table = self._file.read_row_group(group, columns=[self._picture_column])
            self._cached = (group, table.column(0))
        value: Any = self._cached[1][place - int(self._group_starts[group])].as_py()
        if isinstance(value, dict):
            value = value.get("bytes")
        return value if isinstance(value, bytes) and value else None


def open_parquet(path: Path) -> pq.ParquetFile:
    """Open a Parquet file, or say in one line why not."""
    try:
        return pq.ParquetFile(path, memory_map=True)
    except FileNotFoundError:
        raise DataError(f"there is no file {path}; check the path") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path} cannot be read as Parquet: {error}") from error


def _matching(
    table: pa.Table, filters: Mapping[str, Sequence[str]], path: Path
) -> npt.NDArray[np.int64]:
    kept = np.ones(table.num_rows, dtype=bool)
    for column, values in filters.items():
        texts = pc.cast(table.column(column), pa.string())
        found = pc.fill_null(pc.is_in(texts, value_set=pa.array(list(values))), False)
        if not pc.any(found).as_py():
            known = sorted(str(value) for value in texts.unique().to_pylist()[:20])
            raise DataError(
                f"no row of {path} has {' or '.join(values)} in column {column}; "
                f"it holds {', '.join(known)}"
            )
        kept &= found.to_numpy()
    return np.flatnonzero(kept)


def _shares(columns: Sequence[Sequence[object]]) -> list[Share]:
    keys = list(zip(*columns, strict=True))
    groups = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    sizes = Counter(keys)
    ranks: Counter[tuple[object, ...]] = Counter()
    shares = []
    for key in keys:
        shares.append(Share(groups[key], ranks[key], sizes[key]))
        ranks[key] += 1
    return shares
