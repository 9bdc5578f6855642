"""What a batch answers one by one: a row with its id, its picture if it has one, and its fields.

Pictures stay where they are until a row's turn comes. A row that cannot be used keeps its place
and says why, so that it can be reported under its own name.
"""

from __future__ import annotations

import hashlib
import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from mmgen.batch.places import file_size, is_url, name_of, open_place, read_place
from mmgen.errors import DataError, SettingsError

__all__ = [
    "AbstractPicture",
    "BrokenRow",
    "FilePicture",
    "InputRow",
    "ParquetPicture",
    "Row",
    "SlicePicture",
    "StoredPicture",
    "check_id",
    "row_seed",
]

MAX_ID_BYTES = 512


class AbstractPicture(ABC):
    """A picture that is read when it is needed."""

    @property
    @abstractmethod
    def name(self) -> str:
        """File name, or what stands for it."""

    @abstractmethod
    def read(self) -> bytes:
        """Return the encoded picture.

        Raises:
            DataError: it is not there or cut short.
            TransientError: it cannot be read now.
        """

    @abstractmethod
    def stated(self) -> list[object]:
        """Return what can be said of it without reading it; a change shows that it is another."""


@dataclass(frozen=True, slots=True)
class FilePicture(AbstractPicture):
    """A file, or what a URL names."""

    place: str

    @property
    def name(self) -> str:
        return name_of(self.place)

    def read(self) -> bytes:
        return read_place(self.place)

    def stated(self) -> list[object]:
        if is_url(self.place):
            return [self.name]
        try:
            return [self.name, file_size(self.place)]
        except DataError:
            return [self.name, None]


@dataclass(frozen=True, slots=True)
class SlicePicture(AbstractPicture):
    """A part of a file: a member of a tar."""

    place: str
    member: str
    start: int
    size: int

    @property
    def name(self) -> str:
        return name_of(self.member)

    def read(self) -> bytes:
        return read_place(self.place, self.start, self.size)

    def stated(self) -> list[object]:
        return [self.member, self.size]


@dataclass(frozen=True, slots=True)
class StoredPicture(AbstractPicture):
    """A picture that is in memory already."""

    data: bytes
    name: str = "picture"

    def read(self) -> bytes:
        return self.data

    def stated(self) -> list[object]:
        return [hashlib.blake2b(self.data, digest_size=16).hexdigest()]


@dataclass(frozen=True, slots=True)
class ParquetPicture(AbstractPicture):
    """A cell of a Parquet file; neighbours are read with it and kept for a while."""

    place: str
    column: str
    group: int
    place_in_group: int

    @property
    def name(self) -> str:
        return "picture"

    def read(self) -> bytes:
        with _lock:
            column = _parquet_column(self.place, self.column, self.group)
        value: Any = column[self.place_in_group].as_py()
        if isinstance(value, dict):
            value = value.get("bytes")
        if not isinstance(value, bytes) or not value:
            raise DataError(f"column {self.column} has no picture here")
        return value

    def stated(self) -> list[object]:
        return [self.column, self.group, self.place_in_group]


_lock = threading.Lock()


@lru_cache(maxsize=2)
def _parquet_column(place: str, column: str, group: int) -> Any:
    with open_place(place) as file:
        try:
            return pq.ParquetFile(file).read_row_group(group, columns=[column]).column(0)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{place} cannot be read as Parquet: {error}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One thing to answer."""

    index: int
    """Place in the input, from 0."""
    id: str
    """What the result is known by; no two rows have the same."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """Everything else that the input says of it, settings among them."""
    picture: AbstractPicture | None = None
    """What to look at."""

    def stated(self) -> bytes:
        """Return all that decides the row, for fingerprints."""
        picture = None if self.picture is None else self.picture.stated()
        return json.dumps([self.id, self.fields, picture], default=str, sort_keys=True).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenRow:
    """A row that cannot be used."""

    index: int
    id: str
    reason: str

    def stated(self) -> bytes:
        """Return all that is known of the row, for fingerprints."""
        return json.dumps([self.id, self.reason]).encode()


InputRow: TypeAlias = Row | BrokenRow


def check_id(id_: str) -> None:
    """Refuse an id that could not name a file inside the output directory.

    Raises:
        SettingsError: it is empty, too long, holds control characters or leads elsewhere.
    """
    if not id_.strip():
        raise SettingsError("the id is empty; give every row one, or none at all")
    if not id_.isprintable():
        raise SettingsError(f"the id {id_[:60]!r} holds a line break or a control character")
    if len(id_.encode()) > MAX_ID_BYTES:
        raise SettingsError(
            f"the id {id_[:60]!r}… has {len(id_.encode())} bytes; at most {MAX_ID_BYTES} are taken"
        )
    if id_.startswith(("/", "\\")) or {"..", "."} & set(id_.replace("\\", "/").split("/")):
        raise SettingsError(f"the id {id_!r} leads out of its folder; leave out '..' and '/'")


def row_seed(job_seed: int, id_: str) -> int:
    """Return the seed of a row, which depends on nothing but the job's seed and the row's id.

    It has 53 bits, so that every reader of JSON keeps it as it is.
    """
    digest = hashlib.blake2b(f"{job_seed}\n{id_}".encode("utf-8", "surrogatepass"), digest_size=8)
    return int.from_bytes(digest.digest()) >> 11
