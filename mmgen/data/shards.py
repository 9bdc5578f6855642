"""Prepared documents on disk: Arrow files of token ids and flags, with a manifest.

A shard is an uncompressed Arrow IPC file, read by memory mapping through pyarrow without a copy.
The manifest `mmgen.json` says which vocabulary the ids belong to and which shards are whole, so
that a wrong vocabulary or a shard cut short is found when the folder is opened, not in training.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mmgen.errors import DataError
from mmgen.pictures import atomic_file

__all__ = [
    "CONDITION",
    "IMAGE",
    "LOSS",
    "MANIFEST_NAME",
    "Manifest",
    "Sample",
    "ShardFolder",
    "ShardInfo",
    "write_shard",
]

LOSS = 1
"""Flag of an id that the model learns to predict."""
IMAGE = 2
"""Flag of an id that belongs to a picture: its shape and its codes, not its two markers."""
CONDITION = 4
"""Flag of an id that is replaced by the null id when the condition is dropped."""

MANIFEST_NAME = "mmgen.json"

_Ids: TypeAlias = npt.NDArray[np.int32]
_Flags: TypeAlias = npt.NDArray[np.uint8]
_SCHEMA = pa.schema(
    [
        ("row", pa.string()),
        ("variant", pa.int32()),
        ("ids", pa.list_(pa.int32())),
        ("flags", pa.list_(pa.uint8())),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One training document as token ids with a flag byte each."""

    row: str
    """Id of the source row that it was made of."""
    variant: int
    """Which of the documents made of that row."""
    ids: _Ids
    flags: _Flags
    """`LOSS`, `IMAGE` and `CONDITION`, or-ed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardInfo:
    """What the manifest says of one finished shard."""

    file: str
    start: int
    """First source row."""
    stop: int
    """One past the last source row."""
    size: int
    """Bytes of the file."""
    num_documents: int
    num_tokens: int
    num_image_tokens: int
    num_loss_tokens: int
    refused: tuple[tuple[str, str], ...] = ()
    """Rows that could not be read or did not fit: id and reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Contents of `mmgen.json`."""

    vocabulary: str
    """Fingerprint of the vocabulary whose ids these are."""
    config: Mapping[str, object]
    """Everything that decided the contents: settings, source, tokenizer fingerprints."""
    num_rows: int
    """Rows of the source; preparation is complete when the shards cover them."""
    shards: tuple[ShardInfo, ...] = field(default=())

    @property
    def next_row(self) -> int:
        """The first source row that no shard covers."""
        return self.shards[-1].stop if self.shards else 0

    @property
    def is_complete(self) -> bool:
        return self.next_row >= self.num_rows

    @property
    def num_documents(self) -> int:
        return sum(shard.num_documents for shard in self.shards)

    @property
    def num_tokens(self) -> int:
        return sum(shard.num_tokens for shard in self.shards)

    @property
    def refused(self) -> tuple[tuple[str, str], ...]:
        return tuple(item for shard in self.shards for item in shard.refused)

    def write(self, folder: Path) -> None:
        """Replace the manifest of a folder."""
        content = {"format": "mmgen-shards", "version": 1, **asdict(self)}
        with atomic_file(folder / MANIFEST_NAME) as partial:
            partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read the manifest of a folder of shards."""
        path = folder / MANIFEST_NAME
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise DataError(
                f"{folder} holds no prepared data (no {MANIFEST_NAME}); make it with "
                "`mmgen data prepare`"
            ) from None
        except (OSError, ValueError) as error:
            raise DataError(f"cannot read {path}: {error}; prepare the data again") from error
        if not isinstance(content, dict) or content.get("format") != "mmgen-shards":
            raise DataError(f"{path} does not describe prepared data; is it a checkpoint?")
        if content.get("version") != 1:
            raise DataError(
                f"{path} has version {content.get('version')}, expected 1; prepare the data again"
            )
        try:
            shards = tuple(
                ShardInfo(
                    **{**shard, "refused": tuple((row, why) for row, why in shard["refused"])}
                )
                for shard in content["shards"]
            )
            return cls(
                vocabulary=content["vocabulary"],
                config=content["config"],
                num_rows=content["num_rows"],
                shards=shards,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path} is damaged ({error!r}); prepare the data again") from error


def write_shard(
    path: Path,
    samples: Sequence[Sample],
    *,
    start: int,
    stop: int,
    refused: Sequence[tuple[str, str]] = (),
) -> ShardInfo:
    """Write samples as one shard, whole or not at all.

    Args:
        path: the file to write.
        samples: documents, in order.
        start: first source row that they come from.
        stop: one past the last source row.
        refused: rows in that range that gave no document, with the reason.
    """
    offsets = np.cumsum([0, *(len(sample.ids) for sample in samples)], dtype=np.int32)
    ids = np.concatenate([np.empty(0, np.int32), *(sample.ids for sample in samples)])
    flags = np.concatenate([np.empty(0, np.uint8), *(sample.flags for sample in samples)])
    batch = pa.record_batch(
        [
            pa.array([sample.row for sample in samples], pa.string()),
            pa.array([sample.variant for sample in samples], pa.int32()),
            pa.ListArray.from_arrays(pa.array(offsets), pa.array(ids, pa.int32())),
            pa.ListArray.from_arrays(pa.array(offsets), pa.array(flags, pa.uint8())),
        ],
        schema=_SCHEMA,
    )
    with atomic_file(path) as partial, pa.OSFile(str(partial), "wb") as sink:
        with pa.ipc.new_file(sink, _SCHEMA) as writer:
            writer.write_batch(batch)
        sink.flush()
    return ShardInfo(
        file=path.name,
        start=start,
        stop=stop,
        size=path.stat().st_size,
        num_documents=len(samples),
        num_tokens=len(ids),
        num_image_tokens=int(np.count_nonzero(flags & IMAGE)),
        num_loss_tokens=int(np.count_nonzero(flags & LOSS)),
        refused=tuple(refused),
    )


class ShardFolder:
    """A folder of prepared documents, opened for reading by memory mapping."""

    def __init__(self, path: Path, *, fingerprint: str | None = None) -> None:
        """Open and check a folder.

        Args:
            path: the folder that preparation wrote.
            fingerprint: the vocabulary in use; None opens any (to look at, not to train on).
        """
        self.path = path
        self.manifest = Manifest.read(path)
        if fingerprint is not None and fingerprint != self.manifest.vocabulary:
            raise DataError(
                f"{path} was prepared with vocabulary {self.manifest.vocabulary}, but the model "
                f"has {fingerprint}; prepare the data again with this model"
            )
        self._batches = [_open_shard(path, shard) for shard in self.manifest.shards]
        self._offsets = [batch.column("ids").offsets.to_numpy() for batch in self._batches]
        self._ids: list[_Ids] = [
            batch.column("ids").values.to_numpy(zero_copy_only=True) for batch in self._batches
        ]
        self._flags: list[_Flags] = [
            batch.column("flags").values.to_numpy(zero_copy_only=True) for batch in self._batches
        ]
        self._first = np.cumsum([0, *(batch.num_rows for batch in self._batches)])
        self.lengths: npt.NDArray[np.int64] = np.concatenate(
            [np.empty(0, np.int64), *(np.diff(offsets) for offsets in self._offsets)]
        ).astype(np.int64)

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def num_tokens(self) -> int:
        return int(self.lengths.sum())

    def tokens(self, index: int) -> tuple[_Ids, _Flags]:
        """Return ids and flags of one document, as read-only views of the file."""
        shard, start, stop = self._locate(index)
        return self._ids[shard][start:stop], self._flags[shard][start:stop]

    def sample(self, index: int) -> Sample:
        """Return one document with the row it came from."""
        shard, _, _ = self._locate(index)
        place = index - int(self._first[shard])
        ids, flags = self.tokens(index)
        batch = self._batches[shard]
        return Sample(
            row=batch.column("row")[place].as_py(),
            variant=batch.column("variant")[place].as_py(),
            ids=ids,
            flags=flags,
        )

    def _locate(self, index: int) -> tuple[int, int, int]:
        shard = int(np.searchsorted(self._first, index, side="right")) - 1
        place = index - int(self._first[shard])
        offsets = self._offsets[shard]
        return shard, int(offsets[place]), int(offsets[place + 1])


def _open_shard(folder: Path, info: ShardInfo) -> pa.RecordBatch:
    path = folder / info.file
    remedy = "delete the folder and prepare the data again"
    try:
        size = path.stat().st_size
    except OSError:
        raise DataError(
            f"shard {path} is listed in {MANIFEST_NAME} but missing; {remedy}"
        ) from None
    if size != info.size:
        raise DataError(f"shard {path} has {size} bytes, expected {info.size}; {remedy}")
    try:
        batch = pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)
        whole = batch.schema.equals(_SCHEMA) and batch.num_rows == info.num_documents
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"shard {path} cannot be read ({error}); {remedy}") from error
    if not whole:
        raise DataError(f"shard {path} does not hold what {MANIFEST_NAME} says; {remedy}")
    return batch
