"""A source of plain text, for a model that shall also write well."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mmgen.data.sources import AbstractSource, Row, open_parquet
from mmgen.errors import DataError, SettingsError

__all__ = ["TextSource"]


class TextSource(AbstractSource):
    """Documents of plain text: a column of a Parquet file, a text file, or a folder of them.

    Preparation cuts a document that is longer than the context into pieces.
    """

    def __init__(
        self,
        path: Path,
        *,
        column: str = "text",
        filters: Mapping[str, Sequence[str]] | None = None,
        remove: str = "",
    ) -> None:
        """Open the texts.

        Args:
            path: a Parquet file, a text file (one document), or a folder of `.txt` files.
            column: of the Parquet file.
            filters: column to the values of which a row of the Parquet file must have one.
            remove: a regular expression; what it matches is left out.
        """
        try:
            self._remove = re.compile(remove) if remove else None
        except re.error as error:
            raise SettingsError(f"remove is no regular expression: {remove!r}: {error}") from None
        self._texts: pa.ChunkedArray | None = None
        self._files: list[Path] = []
        if path.suffix == ".parquet":
            self._texts = _column(path, column, filters or {})
        elif path.is_dir():
            self._files = sorted(path.rglob("*.txt"))
        elif path.exists():
            self._files = [path]
        if self._texts is None and not self._files:
            raise DataError(f"there are no texts at {path}; check the path")
        self._description = {
            "kind": "text",
            "file": path.name,
            "bytes": sum(file.stat().st_size for file in self._files or [path]),
            "column": column,
            "filters": {name: list(values) for name, values in (filters or {}).items()},
            "remove": remove,
        }

    @property
    def num_rows(self) -> int:
        return len(self._files) if self._texts is None else len(self._texts)

    @property
    def description(self) -> Mapping[str, object]:
        return self._description

    def row(self, index: int) -> Row:
        if self._texts is not None:
            name, text = str(index), self._texts[index].as_py() or ""
        else:
            path = self._files[index]
            name = path.name
            try:
                text = path.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise DataError(f"cannot read {path} as text: {error}") from error
        if self._remove is not None:
            text = self._remove.sub("", text)
        if not text.strip():
            raise DataError(f"text {name} is empty")
        return Row(id=name, text=text.strip())


def _column(path: Path, column: str, filters: Mapping[str, Sequence[str]]) -> pa.ChunkedArray:
    file = open_parquet(path)
    named = file.schema_arrow.names
    missing = sorted({column, *filters} - set(named))
    if missing:
        raise DataError(
            f"{path} has no column {', '.join(missing)}; its columns are {', '.join(named)}"
        )
    table = file.read(columns=[column, *filters])
    kept = np.ones(table.num_rows, dtype=bool)
    for name, values in filters.items():
        texts = pc.cast(table.column(name), pa.string())
        kept &= pc.fill_null(pc.is_in(texts, value_set=pa.array(list(values))), False).to_numpy()
    return table.column(column).take(pa.array(np.flatnonzero(kept)))
