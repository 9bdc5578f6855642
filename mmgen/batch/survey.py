"""A look at the whole input before any work: how many rows, which are unusable, what it is.

It finds what would spoil a job half-way (a truncated archive, an id that two rows share) and
makes the digest by which a later run knows that the input is the same.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmgen.batch.places import name_of
from mmgen.batch.readers import AbstractReader
from mmgen.batch.rows import BrokenRow, InputRow, Row
from mmgen.errors import DataError, MmgenError

__all__ = ["Survey", "checked", "survey"]

_MAX_EXAMPLES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What an input holds."""

    kind: str
    places: tuple[str, ...]
    num_rows: int
    num_broken: int
    examples: tuple[tuple[str, str], ...]
    """Id and reason of the first rows that cannot be used."""
    digest: str
    """Of every row, in order, pictures by name and size."""

    def content(self) -> dict[str, Any]:
        """Return what identifies the input, as JSON values; it may lie elsewhere next time."""
        return {
            "kind": self.kind,
            "files": len(self.places),
            "first": name_of(self.places[0]),
            "rows": self.num_rows,
            "digest": self.digest,
        }


def survey(
    reader: AbstractReader,
    check: Callable[[Row], object],
    *,
    on_row: Callable[[], None] | None = None,
) -> Survey:
    """Read every row once.

    Args:
        check: raises what is wrong with a row.
        on_row: called for each row.

    Raises:
        DataError: the input is damaged or empty, or two rows have the same id.
    """
    digest = hashlib.blake2b(digest_size=16)
    hashes = array("Q")
    num_rows = num_broken = 0
    examples: list[tuple[str, str]] = []
    for row in checked(reader.rows(), check):
        stated = row.stated()
        digest.update(len(stated).to_bytes(8) + stated)
        num_rows += 1
        if isinstance(row, Row):
            hashes.append(_hash(row.id))
        else:
            num_broken += 1
            if len(examples) < _MAX_EXAMPLES:
                examples.append((row.id, row.reason))
        if on_row is not None:
            on_row()
    if not num_rows:
        raise DataError(f"{', '.join(reader.places[:3])} holds no rows")
    _refuse_doubles(np.frombuffer(hashes, dtype=np.uint64), reader)
    return Survey(
        kind=reader.kind,
        places=reader.places,
        num_rows=num_rows,
        num_broken=num_broken,
        examples=tuple(examples),
        digest=digest.hexdigest(),
    )


def checked(rows: Iterable[InputRow], check: Callable[[Row], object]) -> Iterator[InputRow]:
    """Yield rows, those that a check refuses as broken ones."""
    for row in rows:
        if isinstance(row, Row):
            try:
                check(row)
            except MmgenError as error:
                yield BrokenRow(index=row.index, id=row.id, reason=str(error))
                continue
        yield row


def _hash(id_: str) -> int:
    encoded = id_.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(encoded, digest_size=8).digest())


def _refuse_doubles(hashes: np.ndarray[Any, np.dtype[np.uint64]], reader: AbstractReader) -> None:
    """Raise if two rows have one id; hashes that agree by chance are told apart."""
    ordered = np.sort(hashes)
    suspects = {int(value) for value in ordered[1:][ordered[1:] == ordered[:-1]]}
    if not suspects:
        return
    seen: dict[str, int] = {}
    for row in reader.rows():
        if not isinstance(row, Row) or _hash(row.id) not in suspects:
            continue
        if seen.setdefault(row.id, row.index) != row.index:
            raise DataError(
                f"rows {seen[row.id] + 1} and {row.index + 1} have the same id {row.id!r}; give "
                "every row its own, or leave ids out"
            )
