"""Results in large files: Parquet and WebDataset tars, with the pictures inside."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mmgen.batch.log import Record
from mmgen.batch.tasks.abstract import ColumnKind
from mmgen.batch.writers.abstract import AbstractShardWriter
from mmgen.pictures import atomic_file

__all__ = ["ParquetWriter", "WebDatasetWriter"]

_ARROW = {
    "int": pa.int64(),
    "float": pa.float64(),
    "str": pa.string(),
    "bool": pa.bool_(),
    "json": pa.string(),
}
_HUGGING_FACE = {"int": "int64", "float": "float64", "str": "string", "bool": "bool"}
_PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


class ParquetWriter(AbstractShardWriter):
    """Writes Parquet files, which `datasets` loads with their pictures as pictures."""

    def __init__(
        self, job: Path, rows: range, rows_per_shard: int, columns: Mapping[str, ColumnKind]
    ) -> None:
        self._columns: dict[str, ColumnKind] = {"row": "int", "id": "str", **columns}
        super().__init__(job, "parquet", rows, rows_per_shard)

    def is_written(self, number: int) -> bool:
        return self._path(number).exists()

    def write_shard(self, number: int, rows: range, records: Sequence[Record]) -> None:
        good = [record for record in records if record.fault is None]
        lines = [{"row": item.row, "id": item.id, **item.fields} for item in good]
        arrays = [
            pa.array([_cell(line.get(name), kind) for line in lines], _ARROW[kind])
            for name, kind in self._columns.items()
        ]
        pictures = [[self._picture(path) for path in item.pictures] for item in good]
        arrays.append(pa.array([item[0] if item else None for item in pictures], _PICTURE))
        arrays.append(pa.array(pictures, pa.list_(_PICTURE)))
        table = pa.Table.from_arrays(arrays, schema=self._schema())
        if all(len(item) < 2 for item in pictures):
            table = table.drop_columns(["images"])
        with atomic_file(self._path(number)) as partial:
            pq.write_table(table, partial, row_group_size=100, compression="zstd")

    def unpack(self, number: int, records: Sequence[Record]) -> None:
        table = pq.read_table(self._path(number))
        column = table.column("images" if "images" in table.column_names else "image")
        good = [record for record in records if record.fault is None]
        for record, cell in zip(good, column, strict=True):
            value = cell.as_py()
            pictures = value if isinstance(value, list) else [value]
            for path, picture in zip(record.pictures, pictures, strict=False):
                self.to_spool(path, picture["bytes"])

    def remove_shard(self, number: int) -> None:
        self._path(number).unlink()

    def _path(self, number: int) -> Path:
        return self.folder / f"part-{number:05d}.parquet"

    def _picture(self, path: str) -> dict[str, Any]:
        return {"bytes": (self.job / path).read_bytes(), "path": PurePosixPath(path).name}

    def _schema(self) -> pa.Schema:
        fields = [(name, _ARROW[kind]) for name, kind in self._columns.items()]
        features: dict[str, Any] = {
            name: {"dtype": _HUGGING_FACE.get(kind, "string"), "_type": "Value"}
            for name, kind in self._columns.items()
        }
        features["image"] = {"_type": "Image"}
        stated = json.dumps({"info": {"features": features}})
        schema = pa.schema([*fields, ("image", _PICTURE), ("images", pa.list_(_PICTURE))])
        return schema.with_metadata({"huggingface": stated})


class WebDatasetWriter(AbstractShardWriter):
    """Writes tar files of pictures, `.txt` with the words, and `.json` with the result."""

    def __init__(self, job: Path, rows: range, rows_per_shard: int, *, words: str) -> None:
        """Open or begin a folder of shards.

        Args:
            words: the field that goes into `.txt`.
        """
        self._words = words
        self._digits = max(9, len(str(rows.stop)))
        super().__init__(job, "webdataset", rows, rows_per_shard)

    def is_written(self, number: int) -> bool:
        return self._path(number).exists()

    def write_shard(self, number: int, rows: range, records: Sequence[Record]) -> None:
        with (
            atomic_file(self._path(number)) as partial,
            tarfile.open(partial, "w", format=tarfile.USTAR_FORMAT) as tar,
        ):
            for record in records:
                if record.fault is None:
                    self._add(tar, record)

    def _add(self, tar: tarfile.TarFile, record: Record) -> None:
        key = f"{record.row:0{self._digits}d}"
        for path, name in self._members(record):
            _add_member(tar, name, (self.job / path).read_bytes())
        words = record.fields.get(self._words)
        if words is not None:
            text = words if isinstance(words, str) else "\n".join(words)
            _add_member(tar, f"{key}.txt", text.encode())
        line = {"row": record.row, "id": record.id, **record.fields}
        _add_member(tar, f"{key}.json", json.dumps(line, ensure_ascii=False).encode())

    def _members(self, record: Record) -> Iterator[tuple[str, str]]:
        """Yield the files of a record's pictures with their names in the tar."""
        for number, path in enumerate(record.pictures):
            mark = f".{number + 1}" if len(record.pictures) > 1 else ""
            suffix = PurePosixPath(path).suffix
            yield path, f"{record.row:0{self._digits}d}{mark}{suffix}"

    def unpack(self, number: int, records: Sequence[Record]) -> None:
        with tarfile.open(self._path(number), "r:") as tar:
            for record in records:
                for path, name in self._members(record):
                    member = tar.extractfile(name)
                    assert member is not None, f"{name} is no file"
                    self.to_spool(path, member.read())

    def remove_shard(self, number: int) -> None:
        self._path(number).unlink()

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:05d}.tar"


def _cell(value: Any, kind: ColumnKind) -> Any:
    if value is None or kind != "json":
        return value
    return json.dumps(value, ensure_ascii=False)


def _add_member(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))
