"""Where inputs lie: local paths and, through fsspec, URLs; plain, gzip or zstd.

Everything that is read passes through here, so that a missing file, a damaged archive and a
connection that broke are told apart once, and only what may pass by itself is tried again.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from itertools import product
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

import pyarrow as pa

from mmgen.errors import DataError, SettingsError, TransientError

__all__ = [
    "expand_braces",
    "file_size",
    "folder_of",
    "is_url",
    "join",
    "matching",
    "name_of",
    "open_lines",
    "open_place",
    "read_place",
    "suffix_of",
]

_COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".zstd": "zstd"}
_GLOB = re.compile(r"[*?\[]")
_MAX_EXPANDED = 1_000_000


def is_url(place: str) -> bool:
    """Return whether a place is reached through fsspec."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*(::|://)", place) is not None


def name_of(place: str) -> str:
    """Return the last part of a place."""
    return PurePosixPath(place.partition("?")[0] if is_url(place) else place).name


def suffix_of(place: str) -> tuple[str, str | None]:
    """Return the suffix that says what a file holds, and its compression."""
    path = PurePosixPath(name_of(place).lower())
    compression = _COMPRESSIONS.get(path.suffix)
    return (PurePosixPath(path.stem).suffix if compression else path.suffix), compression


def join(folder: str, name: str) -> str:
    """Return a place that is named relative to a folder; absolute ones stay."""
    if is_url(name) or name.startswith("/") or not folder:
        return name
    return f"{folder.rstrip('/')}/{name}"


def folder_of(place: str) -> str:
    """Return the folder that holds a place."""
    head, slash, _ = place.rpartition("/")
    return head or slash


def expand_braces(pattern: str) -> list[str]:
    """Return the places that a pattern with `{000..123}` or `{a,b}` names, itself without any."""
    parts: list[list[str]] = []
    for text, braces in re.findall(r"([^{}]*)(\{[^{}]*\})?", pattern):
        parts += [[text], _choices(braces[1:-1]) if braces else [""]]
    if pattern.count("{") != pattern.count("}") or "{}" in pattern:
        raise SettingsError(f"the braces in {pattern} are not closed or hold nothing")
    total = 1
    for part in parts:
        total *= len(part)
    if total > _MAX_EXPANDED:
        raise SettingsError(f"{pattern} names {total:,} files; at most {_MAX_EXPANDED:,} are taken")
    return ["".join(choice) for choice in product(*parts)]


def _choices(text: str) -> list[str]:
    match = re.fullmatch(r"(\d+)\.\.(\d+)", text)
    if match is None:
        return text.split(",")
    first, last = int(match[1]), int(match[2])
    if last < first:
        raise SettingsError(f"{{{text}}} counts down; write {{{match[2]}..{match[1]}}}")
    if last - first >= _MAX_EXPANDED:
        raise SettingsError(f"{{{text}}} names more than {_MAX_EXPANDED:,} files")
    return [f"{number:0{len(match[1])}d}" for number in range(first, last + 1)]


def matching(pattern: str) -> list[str]:
    """Return the places that a pattern with `*`, `?` or `[...]` matches, in order."""
    if not _GLOB.search(pattern) or (not is_url(pattern) and Path(pattern).exists()):
        return [pattern]
    if is_url(pattern):
        with _remote_errors(pattern):
            system, path = _fsspec().core.url_to_fs(pattern)
            found = [str(system.unstrip_protocol(item)) for item in system.glob(path)]
    else:
        path = Path(pattern)
        anchor = Path(path.anchor)
        relative = str(path.relative_to(anchor)) if path.anchor else pattern
        found = [str(item) for item in (anchor if path.anchor else Path()).glob(relative)]
    if not found:
        raise DataError(f"nothing matches {pattern}; check the path")
    return sorted(found)


def file_size(place: str) -> int | None:
    """Return the bytes of a file; None where that is unknown.

    Raises:
        DataError: there is no such file.
    """
    if is_url(place):
        with _remote_errors(place):
            system, path = _fsspec().core.url_to_fs(place)
            return cast("int | None", system.size(path))
    with _local_errors(place):
        return _path(place).stat().st_size


@contextmanager
def open_place(place: str) -> Iterator[BinaryIO]:
    """Open a file for reading and seeking, as it is."""
    if not is_url(place):
        with _local_errors(place), _path(place).open("rb") as file:
            yield file
        return
    with _remote_errors(place), _fsspec().open(place, "rb") as file:
        yield file


@contextmanager
def open_lines(place: str) -> Iterator[BinaryIO]:
    """Open a file for reading in order, decompressed if its name says it is compressed."""
    compression = suffix_of(place)[1]
    with open_place(place) as file:
        if compression is None:
            yield file
            return
        try:
            with pa.CompressedInputStream(pa.PythonFile(file, mode="r"), compression) as stream:
                yield cast("BinaryIO", io.BufferedReader(_Whole(stream, place), 1 << 18))
        except pa.ArrowInvalid as error:
            raise DataError(f"{place} is damaged: {error}") from error


class _Whole(io.RawIOBase):
    """A decompressed stream that says which file it is when it breaks."""

    def __init__(self, stream: Any, place: str) -> None:
        self._stream = stream
        self._place = place

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._stream.read(len(buffer))
        except OSError as error:
            raise DataError(
                f"{self._place} is damaged or cut short ({error}); fetch it again"
            ) from error
        buffer[: len(data)] = data
        return len(data)


def read_place(place: str, start: int = 0, size: int | None = None) -> bytes:
    """Return a file, or the part of it that has `size` bytes from `start` on."""
    with open_place(place) as file:
        if start:
            file.seek(start)
        data = file.read() if size is None else file.read(size)
    if size is not None and len(data) != size:
        raise DataError(f"{place} is cut short; fetch it again")
    return data


def _path(place: str) -> Path:
    try:
        os.fsencode(place)
    except UnicodeEncodeError:
        raise DataError(f"no file can be named {place!r}: it is no text") from None
    if "\0" in place:
        raise DataError(f"no file can be named {place!r}: it has a zero byte")
    return Path(place)


@contextmanager
def _local_errors(place: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise DataError(f"there is no file {place}; check the path") from None
    except OSError as error:
        raise DataError(f"cannot read {place}: {error.strerror or error}") from error


@contextmanager
def _remote_errors(place: str) -> Iterator[None]:
    try:
        yield
    except (DataError, SettingsError, TransientError):
        raise
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise DataError(f"cannot read {place}: {error}") from error
    except (ImportError, ValueError) as error:
        raise DataError(f"cannot reach {place}: {error}") from error
    except Exception as error:  # each file system has exceptions of its own
        raise TransientError(f"cannot read {place} now: {type(error).__name__}: {error}") from error


def _fsspec() -> Any:
    try:
        return import_module("fsspec")
    except ImportError as error:
        raise SettingsError(
            "URLs are read through fsspec, which is not installed; install mmgen[batch]"
        ) from error
