"""Inputs that are pictures: folders, globs, and WebDataset tars."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from mmgen.batch.places import is_url, open_place, read_place
from mmgen.batch.readers.abstract import AbstractReader, FieldNames, row_of, safe_id
from mmgen.batch.rows import BrokenRow, FilePicture, InputRow, Row, SlicePicture, check_id
from mmgen.errors import DataError, SettingsError

__all__ = ["PICTURE_SUFFIXES", "FolderReader", "PictureListReader", "TarReader"]

PICTURE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".ppm", ".ico"}
)


class FolderReader(AbstractReader):
    """Pictures under a folder, known by their paths in it; hidden files are left out."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._found: list[str] | None = None

    @property
    def kind(self) -> str:
        return "folder"

    @property
    def places(self) -> tuple[str, ...]:
        return (str(self._folder),)

    def rows(self) -> Iterator[InputRow]:
        if self._found is None:
            # Once, so that pictures that are added meanwhile do not shift the others.
            self._found = sorted(self._names())
        if not self._found:
            raise DataError(
                f"{self._folder} holds no pictures ({', '.join(sorted(PICTURE_SUFFIXES))}); "
                "check the path"
            )
        for index, name in enumerate(self._found):
            yield _picture_row(index, name, str(self._folder / name))

    def _names(self) -> Iterator[str]:
        seen: dict[str, Path] = {}
        pending = [self._folder]
        while pending:
            folder = pending.pop()
            real = os.path.realpath(folder)
            if real in seen:
                raise DataError(
                    f"{folder} is the same folder as {seen[real]}, reached by a symbolic link; "
                    "remove the link, so that no picture counts twice"
                )
            seen[real] = folder
            try:
                entries = list(os.scandir(folder))
            except OSError as error:
                raise DataError(f"cannot read the folder {folder}: {error.strerror}") from error
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                is_link = entry.is_symlink()
                if Path(entry.path).is_dir() if is_link else entry.is_dir():
                    pending.append(Path(entry.path))
                elif PurePosixPath(entry.name).suffix.lower() in PICTURE_SUFFIXES:
                    yield Path(entry.path).relative_to(self._folder).as_posix()


class PictureListReader(AbstractReader):
    """Pictures that a glob or braces name, known by their paths below what they share."""

    def __init__(self, places: Sequence[str]) -> None:
        self._places = tuple(places)
        first, last = min(self._places), max(self._places)
        # What the first and the last in order share, all share; whole folders of it count.
        shared = os.path.commonprefix([first, last]) if first != last else first  # noqa: RUF071
        self._prefix = shared[: shared.rfind("/") + 1]

    @property
    def kind(self) -> str:
        return "pictures"

    @property
    def places(self) -> tuple[str, ...]:
        return self._places

    def rows(self) -> Iterator[InputRow]:
        for index, place in enumerate(self._places):
            name = place.removeprefix(self._prefix).lstrip("/")
            yield _picture_row(index, name.partition("?")[0] if is_url(place) else name, place)


class TarReader(AbstractReader):
    """Uncompressed tar files whose members belong together by the part before the first dot.

    Of each key a picture is taken, the fields of `.json`, and the prompt in `.txt`.
    """

    def __init__(self, places: Sequence[str], names: FieldNames) -> None:
        self._places = tuple(places)
        self._names = names

    @property
    def kind(self) -> str:
        return "webdataset"

    @property
    def places(self) -> tuple[str, ...]:
        return self._places

    def rows(self) -> Iterator[InputRow]:
        index = 0
        for place in self._places:
            for key, members in _grouped(place):
                yield self._row(index, key, members, place)
                index += 1

    def _row(
        self, index: int, key: str, members: dict[str, tarfile.TarInfo], place: str
    ) -> InputRow:
        values: dict[str, object] = {}
        where = f"{key} in {place}"
        try:
            if "json" in members:
                found = json.loads(_member(place, members["json"]))
                if not isinstance(found, dict):
                    raise ValueError(f"its .json holds a {type(found).__name__}")
                values.update(found)
            if "txt" in members:
                values.setdefault(
                    self._names.prompt, _member(place, members["txt"]).decode("utf-8").strip()
                )
        except ValueError as error:
            return BrokenRow(
                index=index, id=safe_id(key, index), reason=f"{where} is damaged: {error}"
            )
        values.pop(self._names.picture, None)
        row = row_of(index, values, self._names, folder="", id_=key)
        found_picture = next((name for name in members if f".{name}" in PICTURE_SUFFIXES), None)
        if isinstance(row, BrokenRow) or found_picture is None:
            return row
        member = members[found_picture]
        picture = SlicePicture(place, member.name, member.offset_data, member.size)
        return Row(index=row.index, id=row.id, fields=row.fields, picture=picture)


def _picture_row(index: int, name: str, place: str) -> InputRow:
    try:
        check_id(name)
    except SettingsError as error:
        return BrokenRow(index=index, id=safe_id(name, index), reason=str(error))
    return Row(index=index, id=name, picture=FilePicture(place))


def _grouped(place: str) -> Iterator[tuple[str, dict[str, tarfile.TarInfo]]]:
    """Yield the members of each key; those of one key stand next to each other."""
    seen: set[str] = set()
    members: dict[str, tarfile.TarInfo] = {}
    last: str | None = None
    for member in _files(place):
        path = PurePosixPath(member.name)
        stem, _, extension = path.name.partition(".")
        key = str(path.parent / stem)
        if key != last:
            if last is not None:
                yield last, members
            if key in seen:
                raise DataError(
                    f"{place} has {key!r} in two places; files of one key must stand together"
                )
            seen.add(key)
            members, last = {}, key
        members[extension.lower()] = member
    if last is None:
        raise DataError(f"{place} holds no files")
    yield last, members


def _files(place: str) -> Iterator[tarfile.TarInfo]:
    with open_place(place) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - tarfile.BLOCKSIZE))
        # A whole archive ends with blocks of zeros; a reader would not miss them.
        is_whole = not any(file.read(tarfile.BLOCKSIZE)) and size >= tarfile.BLOCKSIZE
        file.seek(0)
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for member in tar:
                    is_whole = is_whole and member.offset_data + member.size <= size
                    if not is_whole:
                        break
                    if member.isfile():
                        yield member
        except tarfile.TarError as error:
            raise DataError(
                f"{place} cannot be read as an uncompressed tar file ({error}); fetch it again, "
                "or unpack a compressed one first"
            ) from error
        if not is_whole:
            raise DataError(f"{place} is cut short at {size:,} bytes; fetch it again")


def _member(place: str, member: tarfile.TarInfo) -> bytes:
    return read_place(place, member.offset_data, member.size)
