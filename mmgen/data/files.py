"""Sources made of picture files: folders with captions beside them, JSON lines, WebDataset tars."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from mmgen.data.sources import AbstractSource, Row
from mmgen.errors import DataError

__all__ = ["FolderSource", "JsonlSource", "WebDatasetSource"]

_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"})


class FolderSource(AbstractSource):
    """Pictures under a folder, each with a `.txt` of the same name: one caption a line."""

    def __init__(self, path: Path, *, constants: Mapping[str, str] | None = None) -> None:
        """Find the pictures, in the order of their paths.

        Args:
            path: the folder; its subfolders are searched too.
            constants: attribute name to the value that every row has.
        """
        if not path.is_dir():
            raise DataError(f"there is no folder {path}; check the path")
        self._path = path
        self._constants = dict(constants or {})
        found = (item for item in path.rglob("*") if item.suffix.lower() in _SUFFIXES)
        self._pictures = sorted(item.relative_to(path).as_posix() for item in found)
        if not self._pictures:
            raise DataError(
                f"{path} holds no pictures ({', '.join(sorted(_SUFFIXES))}); check the path"
            )

    @property
    def num_rows(self) -> int:
        return len(self._pictures)

    @property
    def description(self) -> Mapping[str, object]:
        return {"kind": "folder", "pictures": self._pictures, "constants": self._constants}

    def row(self, index: int) -> Row:
        name = self._pictures[index]
        picture = self._path / name
        sidecar = picture.with_suffix(".txt")
        try:
            captions = _lines(sidecar.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise DataError(f"{name} has no caption; write one into {sidecar.name}") from None
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"cannot read the caption {sidecar}: {error}") from error
        return Row(id=name, picture=picture, captions=captions, attributes=self._constants)

    def attributes(self, index: int) -> Mapping[str, str]:
        return self._constants


class JsonlSource(AbstractSource):
    """JSON objects, one a line, with the path of a picture relative to the file."""

    def __init__(
        self,
        path: Path,
        *,
        picture_field: str = "image",
        caption_fields: Sequence[str] = ("caption",),
        attributes: Mapping[str, str] | None = None,
        constants: Mapping[str, str] | None = None,
    ) -> None:
        """Open a file.

        Args:
            path: the file of JSON lines; empty lines do not count.
            picture_field: holds the path of the picture.
            caption_fields: each holds a caption or a list of captions.
            attributes: attribute name to field.
            constants: attribute name to the value that every row has.
        """
        try:
            data = path.read_bytes()
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}") from error
        self._path = path
        self._lines = [line for line in data.splitlines() if line.strip()]
        self._picture_field = picture_field
        self._captions = tuple(caption_fields)
        self._attributes = dict(attributes or {})
        self._constants = dict(constants or {})
        self._description = {
            "kind": "jsonl",
            "file": path.name,
            "bytes": len(data),
            "picture_field": picture_field,
            "caption_fields": list(self._captions),
            "attributes": self._attributes,
            "constants": self._constants,
        }

    @property
    def num_rows(self) -> int:
        return len(self._lines)

    @property
    def description(self) -> Mapping[str, object]:
        return self._description

    def row(self, index: int) -> Row:
        record = _record(self._lines[index], f"line {index + 1} of {self._path}")
        if not isinstance(record.get(self._picture_field), str):
            raise DataError(
                f"line {index + 1} of {self._path} has no {self._picture_field}; "
                f"its fields are {', '.join(record)}"
            )
        return Row(
            id=str(record.get("id", index)),
            picture=self._path.parent / record[self._picture_field],
            captions=tuple(text for name in self._captions for text in _texts(record.get(name))),
            attributes=self._attributes_of(record),
        )

    def attributes(self, index: int) -> Mapping[str, str]:
        try:
            return self._attributes_of(_record(self._lines[index], ""))
        except DataError:
            return {}

    def _attributes_of(self, record: Mapping[str, Any]) -> dict[str, str]:
        return {**self._constants, **_fields(record, self._attributes)}


@dataclass(frozen=True, slots=True)
class _Member:
    tar: int
    start: int
    size: int


class WebDatasetSource(AbstractSource):
    """Uncompressed tar files whose members belong together by the part before the first dot."""

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        attributes: Mapping[str, str] | None = None,
        constants: Mapping[str, str] | None = None,
    ) -> None:
        """Index the files.

        Args:
            paths: tar files. Of each key a picture is read, captions from `.txt` (one a line)
                and from the field `caption` of `.json`.
            attributes: attribute name to field of `.json`.
            constants: attribute name to the value that every row has.
        """
        self._paths = tuple(paths)
        self._attributes = dict(attributes or {})
        self._constants = dict(constants or {})
        self._samples: dict[tuple[int, str], dict[str, _Member]] = {}
        for number, path in enumerate(self._paths):
            self._index(number, path)
        self._keys = list(self._samples)
        if not self._keys:
            raise DataError(f"{', '.join(map(str, self._paths))} hold no files; check the paths")
        self._description = {
            "kind": "webdataset",
            "files": [[path.name, path.stat().st_size] for path in self._paths],
            "attributes": self._attributes,
            "constants": self._constants,
        }

    @property
    def num_rows(self) -> int:
        return len(self._keys)

    @property
    def description(self) -> Mapping[str, object]:
        return self._description

    def row(self, index: int) -> Row:
        tar, key = self._keys[index]
        parts = self._samples[tar, key]
        picture = next((part for name, part in parts.items() if f".{name}" in _SUFFIXES), None)
        if picture is None:
            raise DataError(f"{key} in {self._paths[tar]} has no picture, only {', '.join(parts)}")
        captions: list[str] = []
        record: Mapping[str, Any] = {}
        if "txt" in parts:
            captions.extend(_lines(self._read(parts["txt"]).decode("utf-8", "replace")))
        if "json" in parts:
            record = _record(self._read(parts["json"]), f"{key} in {self._paths[tar]}")
            captions.extend(_texts(record.get("caption")))
        return Row(
            id=key,
            picture=self._read(picture),
            captions=tuple(dict.fromkeys(captions)),
            attributes={**self._constants, **_fields(record, self._attributes)},
        )

    def attributes(self, index: int) -> Mapping[str, str]:
        return self._constants

    def _index(self, number: int, path: Path) -> None:
        try:
            with tarfile.open(path, mode="r:") as tar:
                for member in tar:
                    if member.isfile():
                        self._add(number, member)
        except FileNotFoundError:
            raise DataError(f"there is no file {path}; check the path") from None
        except (tarfile.TarError, OSError, EOFError) as error:
            raise DataError(
                f"{path} cannot be read as an uncompressed tar file ({error}); unpack a "
                "compressed one first"
            ) from error

    def _add(self, number: int, member: tarfile.TarInfo) -> None:
        name = PurePosixPath(member.name)
        stem, _, extension = name.name.partition(".")
        parts = self._samples.setdefault((number, str(name.parent / stem)), {})
        parts[extension.lower()] = _Member(number, member.offset_data, member.size)

    def _read(self, member: _Member) -> bytes:
        path = self._paths[member.tar]
        try:
            with path.open("rb") as file:
                file.seek(member.start)
                data = file.read(member.size)
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}") from error
        if len(data) != member.size:
            raise DataError(f"{path} is cut short; fetch it again")
        return data


def _record(line: bytes, where: str) -> Mapping[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise DataError(f"{where} is not JSON: {error}") from None
    if not isinstance(record, dict):
        raise DataError(f"{where} is not a JSON object")
    return record


def _fields(record: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, str]:
    values = {name: ", ".join(_texts(record.get(field))) for name, field in names.items()}
    return {name: value for name, value in values.items() if value}


def _texts(value: object) -> list[str]:
    """Return a field that may be missing, one value or a list, as a list of texts."""
    values = value if isinstance(value, list) else [value]
    return [text for text in (str(item).strip() for item in values if item is not None) if text]


def _lines(text: str) -> tuple[str, ...]:
    return tuple(line.strip() for line in text.splitlines() if line.strip())
