"""Training documents as the shards that recipes read, without another preparation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmgen.batch.log import Record
from mmgen.batch.writers.abstract import AbstractShardWriter
from mmgen.data.prepare import flags_of
from mmgen.data.shards import MANIFEST_NAME, Manifest, Sample, ShardFolder, write_shard
from mmgen.document import EncodedDocument
from mmgen.errors import DataError

__all__ = ["CodesWriter", "pack_sample", "unpack_sample"]

FOLDER = "codes"


class CodesWriter(AbstractShardWriter):
    """Writes Arrow shards with a manifest, as `mmgen data prepare` does."""

    def __init__(
        self,
        job: Path,
        rows: range,
        rows_per_shard: int,
        *,
        vocabulary: str,
        config: Mapping[str, Any],
    ) -> None:
        """Open or begin a folder of shards.

        Args:
            vocabulary: fingerprint of the vocabulary whose ids documents have.
            config: what decided the documents.
        """
        folder = job / FOLDER
        if (folder / MANIFEST_NAME).exists():
            self._manifest = Manifest.read(folder)
        else:
            self._manifest = Manifest(vocabulary=vocabulary, config=config, num_rows=len(rows))
        super().__init__(job, FOLDER, rows, rows_per_shard)

    def is_written(self, number: int) -> bool:
        return number < len(self._manifest.shards)

    def write_shard(self, number: int, rows: range, records: Sequence[Record]) -> None:
        samples = [
            unpack_sample(record.id, (self.job / record.document).read_bytes())
            for record in records
            if record.document is not None
        ]
        refused = [
            (record.id, record.fault.reason) for record in records if record.fault is not None
        ]
        info = write_shard(
            self.folder / f"shard-{number:05d}.arrow",
            samples,
            start=rows.start - self._rows.start,
            stop=rows.stop - self._rows.start,
            refused=refused,
        )
        self._manifest = replace(self._manifest, shards=(*self._manifest.shards, info))
        self._manifest.write(self.folder)

    def unpack(self, number: int, records: Sequence[Record]) -> None:
        shards = ShardFolder(self.folder)
        index = sum(shard.num_documents for shard in self._manifest.shards[:number])
        for record in records:
            if record.document is not None:
                sample = shards.sample(index)
                self.to_spool(record.document, _packed(sample.ids, sample.flags))
                index += 1

    def remove_shard(self, number: int) -> None:
        info = self._manifest.shards[number]
        self._manifest = replace(self._manifest, shards=self._manifest.shards[:number])
        self._manifest.write(self.folder)
        (self.folder / info.file).unlink()


def pack_sample(encoded: EncodedDocument) -> bytes:
    """Return a document's ids and flags as bytes: their number, ids, flags."""
    return _packed(encoded.ids, flags_of(encoded))


def unpack_sample(row: str, data: bytes) -> Sample:
    """Return what `pack_sample` packed."""
    count = int.from_bytes(data[:4], "little")
    if len(data) != 4 + 5 * count:
        raise DataError(f"the document of row {row} is damaged; remove the job and begin again")
    return Sample(
        row=row,
        variant=0,
        ids=np.frombuffer(data, dtype="<i4", count=count, offset=4).astype(np.int32),
        flags=np.frombuffer(data, dtype=np.uint8, offset=4 + 4 * count),
    )


def _packed(ids: npt.NDArray[np.int32], flags: npt.NDArray[np.uint8]) -> bytes:
    return len(ids).to_bytes(4, "little") + ids.astype("<i4").tobytes() + flags.tobytes()
