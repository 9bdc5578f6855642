"""Inputs in columns: Parquet files and Hugging Face datasets that were saved on disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mmgen.batch.places import folder_of, open_place
from mmgen.batch.readers.abstract import AbstractReader, FieldNames, row_of
from mmgen.batch.rows import BrokenRow, InputRow, ParquetPicture, Row
from mmgen.errors import DataError, SettingsError

__all__ = ["DatasetReader", "ParquetReader", "is_dataset"]


class ParquetReader(AbstractReader):
    """Parquet files; a binary column holds the pictures, or a text column their paths."""

    def __init__(self, places: Sequence[str], names: FieldNames) -> None:
        self._places = tuple(places)
        self._names = names

    @property
    def kind(self) -> str:
        return "parquet"

    @property
    def places(self) -> tuple[str, ...]:
        return self._places

    def rows(self) -> Iterator[InputRow]:
        index = 0
        for place in self._places:
            with open_place(place) as file:
                try:
                    parquet = pq.ParquetFile(file)
                    for group in range(parquet.num_row_groups):
                        for row in self._group(parquet, group, place, index):
                            yield row
                            index += 1
                except pa.ArrowException as error:
                    raise DataError(
                        f"{place} cannot be read as Parquet ({error}); fetch it again"
                    ) from error

    def _group(
        self, parquet: pq.ParquetFile, group: int, place: str, index: int
    ) -> Iterator[InputRow]:
        schema = parquet.schema_arrow
        picture = self._names.picture if self._names.picture in schema.names else None
        if picture is None and self._names.prompt not in schema.names:
            raise DataError(
                f"{place} has no column {self._names.prompt!r} or {self._names.picture!r}; its "
                f"columns are {', '.join(schema.names)}"
            )
        is_stored = picture is not None and _is_binary(schema.field(picture).type)
        # Columns of bytes are large; those of pictures are read when a row's turn comes.
        small = [
            name
            for name in schema.names
            if not (name == picture and is_stored) and not _is_binary(schema.field(name).type)
        ]
        columns = parquet.read_row_group(group, columns=small)
        for number in range(parquet.metadata.row_group(group).num_rows):
            values = {name: columns.column(name)[number].as_py() for name in small}
            row = row_of(index + number, values, self._names, folder=folder_of(place))
            if isinstance(row, BrokenRow) or not is_stored:
                yield row
                continue
            assert picture is not None
            cell = ParquetPicture(place, picture, group, number)
            yield Row(index=row.index, id=row.id, fields=row.fields, picture=cell)


class DatasetReader(AbstractReader):
    """A data set that `datasets` saved with `save_to_disk`."""

    def __init__(self, folder: Path, names: FieldNames, *, split: str | None = None) -> None:
        """Open a data set.

        Args:
            split: which part, where there are several.
        """
        self._folder = folder
        self._names = names
        self._data = _load(folder, split)
        self._picture = names.picture if names.picture in self._data.column_names else None
        if self._picture is None and names.prompt not in self._data.column_names:
            raise DataError(
                f"{folder} has no column {names.prompt!r} or {names.picture!r}; its columns are "
                f"{', '.join(self._data.column_names)}"
            )

    @property
    def kind(self) -> str:
        return "datasets"

    @property
    def places(self) -> tuple[str, ...]:
        return (str(self._folder),)

    def rows(self) -> Iterator[InputRow]:
        # Without its own decoding, a picture is a struct of bytes and path.
        for index, values in enumerate(self._data.with_format("arrow").iter(batch_size=1)):
            cells = {name: values.column(name)[0].as_py() for name in values.column_names}
            yield row_of(index, cells, self._names, folder="")


def is_dataset(folder: Path) -> bool:
    """Return whether `datasets` saved something into a folder."""
    return any((folder / name).is_file() for name in ("dataset_dict.json", "dataset_info.json"))


def _load(folder: Path, split: str | None) -> Any:
    try:
        package = import_module("datasets")
    except ImportError as error:
        raise SettingsError(
            f"{folder} was saved by datasets, which is not installed; install mmgen[batch]"
        ) from error
    try:
        loaded = package.load_from_disk(str(folder))
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise DataError(f"{folder} cannot be read as a data set: {error}") from error
    if not isinstance(loaded, dict):
        if split is not None:
            raise SettingsError(f"{folder} has no splits; leave out --split")
        return loaded
    if split is None and len(loaded) > 1:
        raise SettingsError(f"{folder} has the splits {', '.join(loaded)}; choose with --split")
    if split is not None and split not in loaded:
        raise SettingsError(f"{folder} has no split {split!r}; it has {', '.join(loaded)}")
    return loaded[split or next(iter(loaded))]


def _is_binary(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(_is_binary(kind.field(number).type) for number in range(kind.num_fields))
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))
