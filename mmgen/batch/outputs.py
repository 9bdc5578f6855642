"""From the log to the outputs: records in the order of rows to every writer, each once.

Pictures and training documents are files before their row is in the log. Those that are packed
into larger files wait in the spool and are removed when every writer has them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from mmgen.batch.job import SPOOL_NAME, sync_folder
from mmgen.batch.log import Record, ResultsLog
from mmgen.batch.results import Result
from mmgen.batch.writers.abstract import AbstractShardWriter, AbstractWriter
from mmgen.document import DocumentCodec
from mmgen.errors import OutputError
from mmgen.pictures import atomic_file

__all__ = ["Layout", "Outputs"]

PICTURES_NAME = "pictures"
_ROWS_PER_FOLDER = 10_000


class Layout:
    """Where files of single rows lie in a job directory."""

    def __init__(self, job: Path, rows: range, *, keep_pictures: bool) -> None:
        """Make the folders.

        Args:
            keep_pictures: whether pictures stay as files, rather than waiting to be packed.
        """
        self.job = job
        self._rows = rows
        self._pictures = PICTURES_NAME if keep_pictures else SPOOL_NAME
        self._digits = max(6, len(str(rows.stop)))
        try:
            (job / SPOOL_NAME).mkdir(exist_ok=True)
            (job / self._pictures).mkdir(exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot write into {job}: {error.strerror}") from error

    def write(self, row: int, id_: str, result: Result, codec: DocumentCodec | None) -> Record:
        """Write a result's files, synced, and return the record that names them.

        Args:
            codec: makes ids of the training document; None where none is wanted.
        """
        stem = f"{row:0{self._digits}d}"
        pictures = []
        for number, picture in enumerate(result.pictures):
            mark = f"-{number + 1}" if len(result.pictures) > 1 else ""
            label = f"-{slug(result.label)}" if self._pictures == PICTURES_NAME else ""
            pictures.append(f"{self._folder(row)}/{stem}{label}{mark}{picture.suffix}")
            self._write(pictures[-1], picture.data)
        document = None
        if codec is not None and result.document is not None:
            from mmgen.batch.writers.codes import pack_sample

            document = f"{SPOOL_NAME}/{stem}.ids"
            self._write(document, pack_sample(codec.encode(result.document)))
        return Record(
            row=row,
            id=id_,
            fields=result.fields,
            pictures=tuple(pictures),
            document=document,
        )

    def sync_folders(self, records: Iterable[Record]) -> None:
        """Make the names of records' files durable."""
        names = (name for item in records for name in (*item.pictures, item.document) if name)
        for folder in {PurePosixPath(name).parent for name in names}:
            sync_folder(self.job / folder)

    def remove_orphans(self, log: ResultsLog, packed: int) -> None:
        """Remove files of rows that are not in the log, and of those that are packed.

        Args:
            packed: the first row that some writer still needs in the spool.
        """
        for folder in (SPOOL_NAME, self._pictures):
            for path in (self.job / folder).rglob("*"):
                match = re.match(r"\d+", path.name)
                if match is None or path.is_dir():
                    continue
                row = int(match[0])
                is_known = row in self._rows and row in log
                if not is_known or (folder == SPOOL_NAME and row < packed):
                    path.unlink(missing_ok=True)

    def _folder(self, row: int) -> str:
        if self._pictures == SPOOL_NAME or len(self._rows) <= _ROWS_PER_FOLDER:
            return self._pictures
        return f"{self._pictures}/{row // 1000:0{self._digits - 3}d}"

    def _write(self, name: str, data: bytes) -> None:
        path = self.job / name
        if path.parent.parent != self.job:
            path.parent.mkdir(exist_ok=True)
        with atomic_file(path) as partial:
            partial.write_bytes(data)


class Outputs:
    """All outputs of a job."""

    def __init__(
        self, job: Path, log: ResultsLog, writers: Sequence[AbstractWriter], rows: range
    ) -> None:
        """Bring outputs up to the log, as far as it goes without a gap."""
        self._job = job
        self._log = log
        self._writers = tuple(writers)
        self._rows = rows
        self._position = min((writer.position for writer in writers), default=rows.stop)
        self._unpacked = min(self.packed, self._position)
        self.advance()

    @property
    def packed(self) -> int:
        """The first row whose files in the spool are still needed."""
        shards = (item for item in self._writers if isinstance(item, AbstractShardWriter))
        return min((item.durable_position for item in shards), default=self._rows.stop)

    @property
    def position(self) -> int:
        """The first row that has not been handed to all writers."""
        return self._position

    def advance(self) -> None:
        """Hand records to writers up to the first row that has none."""
        start = self._position
        while self._position < self._rows.stop and self._position in self._log:
            record = self._log.read(self._position)
            for writer in self._writers:
                if writer.position == self._position:
                    writer.write(record)
            self._position += 1
        if self._position > start:
            for writer in self._writers:
                writer.flush()
        self._empty_spool()

    def _empty_spool(self) -> None:
        packed = min(self.packed, self._position)
        for row in range(self._unpacked, packed):
            record = self._log.read(row)
            for name in (*record.pictures, record.document):
                if name is not None and name.startswith(f"{SPOOL_NAME}/"):
                    (self._job / name).unlink(missing_ok=True)
        self._unpacked = max(self._unpacked, packed)


def slug(name: str) -> str:
    """Return words as part of a file name."""
    words = re.sub(r"[\W_]+", "-", name.lower()).strip("-")
    return words[:40].rstrip("-") or "row"
