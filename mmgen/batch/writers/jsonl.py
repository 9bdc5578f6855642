"""Results and errors as JSON lines, each a file that grows in the order of rows."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from operator import itemgetter
from pathlib import Path
from typing import Any

from mmgen.batch.log import Record, ResultsLog
from mmgen.batch.writers.abstract import AbstractWriter
from mmgen.errors import OutputError

__all__ = ["JsonLinesWriter", "error_line", "result_line"]


class JsonLinesWriter(AbstractWriter):
    """Appends one line per record, or none."""

    def __init__(
        self,
        path: Path,
        first_row: int,
        line: Callable[[Record], dict[str, Any] | None],
        row_of: Callable[[dict[str, Any]], int] = itemgetter("row"),
    ) -> None:
        """Open or begin a file, and cut off a torn last line.

        Args:
            line: what to write of a record.
            row_of: which row a written line belongs to.
        """
        self._path = path
        self._line = line
        self._row_of = row_of
        self._first = self._position = first_row
        try:
            self._file = path.open("ab+")
            self._recover()
        except OSError as error:
            raise self._failure(error) from error

    @property
    def position(self) -> int:
        return self._position

    def write(self, record: Record) -> None:
        content = self._line(record)
        if content is not None:
            try:
                # A lone half of a pair cannot be UTF-8; it stands as JSON's own escape.
                line = json.dumps(content, ensure_ascii=False).encode("utf-8", "backslashreplace")
                self._file.write(line + b"\n")
            except OSError as error:
                raise self._failure(error) from error
        self._position = record.row + 1

    def flush(self) -> None:
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._failure(error) from error

    def close(self) -> None:
        # What could not be written was reported before; closing would try once more.
        with suppress(OSError):
            self._file.close()

    def rewind(self, row: int, log: ResultsLog) -> None:
        if row < self._position:
            self._position = self._first
            try:
                self._recover(row)
            except OSError as error:
                raise self._failure(error) from error
            self._position = row

    def _recover(self, stop: int | None = None) -> None:
        """Find the end of the whole lines, or of those before a row, and cut off the rest."""
        self._file.seek(0)
        end = 0
        for line in self._file:
            try:
                row = self._row_of(json.loads(line)) if line.endswith(b"\n") else None
            except (KeyError, TypeError, ValueError):
                row = None
            if not isinstance(row, int) or (stop is not None and row >= stop):
                break
            self._position = row + 1
            end += len(line)
        self._file.truncate(end)

    def _failure(self, error: OSError) -> OutputError:
        return OutputError(
            f"cannot write {self._path}: {error.strerror}; free some space and run the same "
            "command again"
        )


def result_line(record: Record) -> dict[str, Any] | None:
    """Return the line of an answered row: row, id, fields, and the pictures that were kept."""
    if record.fault is not None:
        return None
    content = {"row": record.row, "id": record.id, **record.fields}
    kept = [path for path in record.pictures if not path.startswith("spool/")]
    if len(kept) == 1:
        content["picture"] = kept[0]
    elif kept:
        content["pictures"] = kept
    return content


def error_line(record: Record) -> dict[str, Any] | None:
    """Return the line of a row without an answer: row, id, kind of error, reason, attempts."""
    if record.fault is None:
        return None
    fault = record.fault
    return {
        "row": record.row,
        "id": record.id,
        "error": fault.kind,
        "reason": fault.reason,
        "attempts": fault.attempts,
    }
