"""The results log: one line of JSON per answered row, on disk before anybody is told of it.

Lines come in the order of completion. A line counts once it is whole and synced; what a kill left
after the last whole line is cut off when the log is opened again. All other outputs of a job
follow from this file, so nothing else has to be safe at every moment.
"""

from __future__ import annotations

import json
import os
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mmgen.errors import DataError, OutputError

__all__ = ["Fault", "Record", "ResultsLog"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Why a row has no answer."""

    kind: str
    """Name of the error, such as `PictureError`."""
    reason: str
    attempts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What became of one row: its result, or its fault."""

    row: int
    """Place in the input."""
    id: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    """The result as JSON values; empty for a fault."""
    pictures: tuple[str, ...] = ()
    """Files of the result's pictures, relative to the job directory."""
    document: str | None = None
    """File of the training document, relative to the job directory."""
    fault: Fault | None = None

    def line(self) -> bytes:
        """Return the record as a line of the log."""
        content: dict[str, Any] = {"row": self.row, "id": self.id}
        if self.fault is not None:
            fault = self.fault
            content["fault"] = [fault.kind, fault.reason, fault.attempts]
        else:
            content["fields"] = dict(self.fields)
        if self.pictures:
            content["pictures"] = list(self.pictures)
        if self.document is not None:
            content["document"] = self.document
        return json.dumps(content, separators=(",", ":")).encode() + b"\n"

    @classmethod
    def parse(cls, line: bytes) -> Record | None:
        """Return the record of a line; None if it is no whole line of a log."""
        if not line.endswith(b"\n"):
            return None
        try:
            content = json.loads(line)
            fault = content.get("fault")
            return cls(
                row=content["row"],
                id=content["id"],
                fields=content.get("fields", {}),
                pictures=tuple(content.get("pictures", ())),
                document=content.get("document"),
                fault=None
                if fault is None
                else Fault(kind=fault[0], reason=fault[1], attempts=fault[2]),
            )
        except (AttributeError, IndexError, KeyError, TypeError, ValueError):
            return None


class ResultsLog:
    """Records of a job by row, in a file that only grows."""

    def __init__(self, path: Path, first_row: int, stop_row: int) -> None:
        """Open or begin a log, and cut off a torn tail.

        Args:
            first_row: first row of the job.
            stop_row: one past its last row.
        """
        self._path = path
        self._first = first_row
        self._offsets = array("q", [-1]) * (stop_row - first_row)
        self._has_failed = bytearray(stop_row - first_row)
        self._fault_kinds: Counter[str] = Counter()
        self.num_done = 0
        self.num_failed = 0
        self._end = 0
        try:
            self._file = path.open("ab+")
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror}") from error
        try:
            self._recover()
        except DataError:
            self.close()
            raise

    def __contains__(self, row: int) -> bool:
        return self._offsets[row - self._first] >= 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        # What could not be written was reported before; closing would try once more.
        with suppress(OSError):
            self._file.close()

    def append(self, records: Sequence[Record]) -> None:
        """Write records and sync; when this returns they are safe."""
        lines = [record.line() for record in records]
        start = self._end
        self._write(b"".join(lines))
        for record, line in zip(records, lines, strict=True):
            self._count(record, start)
            start += len(line)

    def forget_failed(self) -> None:
        """Take faults back, so that their rows have no record any more."""
        rows = self.failed_rows
        kinds = [self._fault_of(row).kind for row in rows]
        self._write(
            b"".join(json.dumps({"row": row, "again": True}).encode() + b"\n" for row in rows)
        )
        for row, kind in zip(rows, kinds, strict=True):
            self._forget(row, kind)

    def read(self, row: int) -> Record:
        """Return the record of a row that has one."""
        offset = self._offsets[row - self._first]
        assert offset >= 0, f"row {row} has no record"
        self._file.seek(offset)
        record = Record.parse(self._file.readline())
        if record is None or record.row != row:
            raise DataError(f"{self._path} changed while it was in use; do not write into it")
        return record

    def records(self) -> Iterator[Record]:
        """Yield every record in the order of rows."""
        for place, offset in enumerate(self._offsets):
            if offset >= 0:
                yield self.read(self._first + place)

    @property
    def failed_rows(self) -> list[int]:
        """Rows whose record is a fault."""
        return [self._first + place for place, failed in enumerate(self._has_failed) if failed]

    @property
    def fault_kinds(self) -> dict[str, int]:
        """Rows without an answer by kind of error."""
        return {kind: count for kind, count in sorted(self._fault_kinds.items()) if count}

    def _write(self, data: bytes) -> None:
        try:
            self._file.write(data)
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise OutputError(
                f"cannot write {self._path}: {error.strerror}; free some space and run the same "
                "command again"
            ) from error
        self._end += len(data)

    def _recover(self) -> None:
        self._file.seek(0)
        end = 0
        for line in self._file:
            record, again = Record.parse(line), _row_again(line)
            row = record.row if record is not None else again
            if row is None:
                break
            if not self._first <= row < self._first + len(self._offsets):
                raise DataError(
                    f"{self._path} has a result for row {row}, which this job does not have; the "
                    "file was changed or belongs to another job"
                )
            if record is not None:
                self._count(record, end)
            elif row in self:
                self._forget(row, self._fault_of(row, end + len(line)).kind)
            end += len(line)
        # Nothing but what was being written when the process died may follow.
        if any(Record.parse(line) is not None for line in self._file):
            raise DataError(
                f"{self._path} is damaged after byte {end}, with whole results behind; restore "
                "it, or begin again in another directory"
            )
        self._file.truncate(end)
        self._end = end

    def _fault_of(self, row: int, back_to: int | None = None) -> Fault:
        """Return a row's fault.

        Args:
            back_to: where to go on reading.
        """
        fault = self.read(row).fault
        assert fault is not None, f"row {row} has a result"
        if back_to is not None:
            self._file.seek(back_to)
        return fault

    def _count(self, record: Record, offset: int) -> None:
        place = record.row - self._first
        assert self._offsets[place] < 0, f"row {record.row} was answered twice"
        self._offsets[place] = offset
        self.num_done += 1
        if record.fault is not None:
            self._has_failed[place] = True
            self.num_failed += 1
            self._fault_kinds[record.fault.kind] += 1

    def _forget(self, row: int, kind: str) -> None:
        place = row - self._first
        self._offsets[place] = -1
        self._has_failed[place] = False
        self.num_done -= 1
        self.num_failed -= 1
        self._fault_kinds[kind] -= 1


def _row_again(line: bytes) -> int | None:
    """Return the row that a line takes back; None if it is no such line."""
    try:
        content = json.loads(line) if line.endswith(b"\n") else None
        return int(content["row"]) if content is not None and content["again"] is True else None
    except (KeyError, TypeError, ValueError):
        return None
