"""Inputs of every form as rows: which reader fits what a user names."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import BinaryIO, Literal, TypeAlias

from mmgen.batch.places import expand_braces, is_url, matching, suffix_of
from mmgen.batch.readers.abstract import AbstractReader, FieldNames
from mmgen.batch.readers.lines import JsonLinesReader, JsonReader, Meaning, TableReader, TextReader
from mmgen.batch.readers.pictures import (
    PICTURE_SUFFIXES,
    FolderReader,
    PictureListReader,
    TarReader,
)
from mmgen.batch.readers.tables import DatasetReader, ParquetReader, is_dataset
from mmgen.errors import DataError, OutputError, SettingsError
from mmgen.pictures import atomic_file

__all__ = ["KINDS", "AbstractReader", "FieldNames", "Kind", "keep_stdin", "open_reader"]

Kind: TypeAlias = Literal[
    "folder", "pictures", "txt", "csv", "tsv", "json", "jsonl", "parquet", "webdataset", "datasets"
]
KINDS: dict[str, Kind] = {
    ".txt": "txt",
    ".csv": "csv",
    ".tsv": "tsv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".tar": "webdataset",
    **dict.fromkeys(PICTURE_SUFFIXES, "pictures"),
}
"""Forms of input by the suffixes that tell them."""


def open_reader(
    source: str,
    names: FieldNames | None = None,
    *,
    meaning: Meaning,
    kind: Kind | None = None,
    split: str | None = None,
) -> AbstractReader:
    """Return the reader of an input.

    Args:
        source: a folder, a file, a URL, or a pattern with `*` or braces.
        meaning: what the lines of a text file are.
        kind: form of the input; by default from its name.
        split: part of a data set that was saved on disk.
    """
    names = names or FieldNames()
    places = [place for pattern in expand_braces(source) for place in matching(pattern)]
    folder = Path(places[0])
    is_folder = len(places) == 1 and not is_url(places[0]) and folder.is_dir()
    if kind is None:
        kind = _folder_kind(folder) if is_folder else _file_kind(places)
    if split is not None and kind != "datasets":
        raise SettingsError(f"--split is for data sets saved on disk; {source} is none")
    if is_folder != (kind in ("folder", "datasets")):
        what = "a folder" if is_folder else "no folder"
        raise SettingsError(f"{source} is {what}, which is not read as {kind}")
    for place in places:
        if not is_folder and not is_url(place) and not Path(place).is_file():
            raise DataError(f"there is no file {place}; check the path")
    match kind:
        case "folder":
            return FolderReader(folder)
        case "datasets":
            return DatasetReader(folder, names, split=split)
        case "pictures":
            return PictureListReader(places)
        case "txt":
            return TextReader(places, names, meaning=meaning)
        case "csv" | "tsv":
            return TableReader(places, names, separator="," if kind == "csv" else "\t")
        case "json":
            return JsonReader(places, names)
        case "jsonl":
            return JsonLinesReader(places, names)
        case "parquet":
            return ParquetReader(places, names)
        case "webdataset":
            return TarReader(places, names)


def keep_stdin(folder: Path, stream: BinaryIO | None = None) -> str:
    """Copy standard input into a folder, where a later run finds it; return the file.

    It is taken for JSON lines if it begins like an object, and for plain lines otherwise.
    """
    kept = sorted(folder.glob("stdin.*"))
    if kept:
        return str(kept[0])
    data = (stream or sys.stdin.buffer).read()
    if not data.strip():
        raise DataError("standard input is empty; give one row a line")
    first = data.lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    suffix = {b"{": "jsonl", b"[": "json"}.get(first, "txt")
    path = folder / f"stdin.{suffix}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {folder}: {error.strerror}") from error
    with atomic_file(path) as partial:
        partial.write_bytes(data)
    return str(path)


def _folder_kind(folder: Path) -> Kind:
    return "datasets" if is_dataset(folder) else "folder"


def _file_kind(places: list[str]) -> Kind:
    kinds = {place: KINDS.get(suffix_of(place)[0]) for place in places}
    unknown = next((place for place, kind in kinds.items() if kind is None), None)
    if unknown is not None:
        known = ", ".join(suffix for suffix, kind in KINDS.items() if kind != "pictures")
        raise SettingsError(
            f"{unknown} does not say what it holds; end it in {known}, or in the suffix of a "
            "picture, or say it with --kind"
        )
    found = sorted({kind for kind in kinds.values() if kind is not None})
    if len(found) > 1:
        raise SettingsError(f"the input mixes {' and '.join(found)}; give files of one kind")
    compressed = [place for place in places if suffix_of(place)[1] is not None]
    if compressed and found[0] in ("parquet", "webdataset", "pictures"):
        raise SettingsError(f"{compressed[0]} is compressed; unpack it first")
    return found[0]
