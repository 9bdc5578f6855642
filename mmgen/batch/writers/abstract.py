"""What a writer of outputs promises: rows in order, whole files, and where it left off."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from mmgen.batch.job import SPOOL_NAME, sync_folder
from mmgen.batch.log import Record, ResultsLog
from mmgen.pictures import atomic_file

__all__ = ["AbstractShardWriter", "AbstractWriter"]


class AbstractWriter(ABC):
    """Writes records, which come in the order of rows, each once and failed ones too."""

    @property
    @abstractmethod
    def position(self) -> int:
        """The next row that it needs; what came before is on disk."""

    @abstractmethod
    def write(self, record: Record) -> None:
        """Take the record of the row at `position`."""

    @abstractmethod
    def flush(self) -> None:
        """Bring to disk what can be, after some records."""

    def close(self) -> None:  # noqa: B027
        """Let go of open files."""

    @abstractmethod
    def rewind(self, row: int, log: ResultsLog) -> None:
        """Go back to a row, before anything is written, so that it and what follows come again.

        What was packed returns to the spool first.
        """


class AbstractShardWriter(AbstractWriter):
    """Writes one file per so many rows, whole or not at all."""

    def __init__(self, job: Path, folder: str, rows: range, rows_per_shard: int) -> None:
        """Find where an earlier run left off.

        Args:
            job: the job directory, to which files of records are relative.
            folder: name of the folder of shards in it.
            rows: rows of the job.
        """
        self.job = job
        self.folder = job / folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self._rows = rows
        self._rows_per_shard = rows_per_shard
        self._pending: list[Record] = []
        self._number = 0
        while self._start < rows.stop and self.is_written(self._number):
            self._number += 1

    @abstractmethod
    def is_written(self, number: int) -> bool:
        """Return whether a shard is on disk."""

    @abstractmethod
    def write_shard(self, number: int, rows: range, records: Sequence[Record]) -> None:
        """Write one shard atomically."""

    @abstractmethod
    def unpack(self, number: int, records: Sequence[Record]) -> None:
        """Bring what a shard holds of the spool back there; `records` are those it was made of."""

    @abstractmethod
    def remove_shard(self, number: int) -> None:
        """Remove the last shard."""

    @property
    def position(self) -> int:
        return self._start + len(self._pending)

    def write(self, record: Record) -> None:
        self._pending.append(record)
        stop = min(self._start + self._rows_per_shard, self._rows.stop)
        if self.position == stop:
            self.write_shard(self._number, range(self._start, stop), self._pending)
            sync_folder(self.folder)
            self._number += 1
            self._pending = []

    def flush(self) -> None:
        pass

    def rewind(self, row: int, log: ResultsLog) -> None:
        while self._number and self.durable_position > row:
            number, stop = self._number - 1, self._start
            start = self._rows.start + number * self._rows_per_shard
            self.unpack(number, [log.read(place) for place in range(start, stop)])
            sync_folder(self.job / SPOOL_NAME)
            self.remove_shard(number)
            self._number = number

    def to_spool(self, path: str, data: bytes) -> None:
        """Put a file of a record back, unless it is kept elsewhere."""
        if path.startswith(f"{SPOOL_NAME}/"):
            with atomic_file(self.job / path) as partial:
                partial.write_bytes(data)

    @property
    def durable_position(self) -> int:
        """The first row that no file on disk has."""
        return self._start

    @property
    def _start(self) -> int:
        return min(self._rows.start + self._number * self._rows_per_shard, self._rows.stop)
