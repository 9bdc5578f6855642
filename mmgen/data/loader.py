"""Endless packed batches from one or several folders of shards, resumable to the batch.

What a batch holds is a function of the seed and a few counters. The state that a training
checkpoint keeps is those counters.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from mmgen.data.packing import pack, uniform
from mmgen.data.shards import CONDITION, IMAGE, LOSS, ShardFolder
from mmgen.errors import DataError, SettingsError

if TYPE_CHECKING:
    from mmgen.vocabulary import Vocabulary

__all__ = ["IGNORE_INDEX", "Batch", "PackedLoader", "pass_once"]

IGNORE_INDEX = -100
"""Target of a position that does not count for the loss."""

_CHOICE, _DROPOUT = 1, 2


@dataclass(frozen=True, slots=True)
class Batch:
    """Packed rows as tensors `[rows, context_length]`, all int64."""

    ids: torch.Tensor
    targets: torch.Tensor
    """The next id of the same document, or `IGNORE_INDEX`."""
    positions: torch.Tensor
    """Position inside the document."""
    document_ids: torch.Tensor
    """Number of the document in its row; padding has a number of its own."""
    modality: torch.Tensor
    """Of the target: 0 text, 1 image."""

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch on another device."""
        return Batch(*(getattr(self, item.name).to(device) for item in fields(self)))

    def rows(self, rows: slice) -> Batch:
        """Return some rows of the batch, without copying."""
        return Batch(*(getattr(self, item.name)[rows] for item in fields(self)))

    def split(self, num_rows: int) -> Iterator[Batch]:
        """Yield the batch in parts of `num_rows`, the last perhaps smaller."""
        for start in range(0, len(self.ids), num_rows):
            yield self.rows(slice(start, start + num_rows))


@dataclass(frozen=True, slots=True)
class _Place:
    """A document to put in a row: which folder, which document, and what of its condition goes."""

    folder: int
    index: int
    dropped: Literal["nothing", "words", "condition"] = "nothing"


@dataclass(frozen=True, slots=True)
class _Cursor:
    """The start of a window: documents drawn so far, in all and from each folder."""

    num_drawn: int
    per_folder: tuple[int, ...]


class PackedLoader:
    """An endless iterator of batches; each folder is shuffled anew in each of its epochs."""

    def __init__(
        self,
        shards: Mapping[Path, float] | Sequence[Path],
        *,
        vocabulary: Vocabulary,
        context_length: int,
        rows_per_batch: int,
        seed: int,
        condition_dropout: float = 0.1,
        word_dropout: float = 0.0,
        window: int = 2048,
    ) -> None:
        """Open the folders and start at the first batch.

        Args:
            shards: folders of prepared documents; the number is the share of tokens wanted from
                each, in proportion to the others. A plain list takes every document equally often.
            vocabulary: of the model; a folder of another vocabulary is refused.
            context_length: ids in a row.
            rows_per_batch: rows in a batch.
            seed: of the order, the mixture and the condition dropout.
            condition_dropout: share of documents whose condition becomes null, drawn anew in
                each epoch.
            word_dropout: share of documents of whose condition the words alone become null, if
                there are pictures in it; another share than that of `condition_dropout`.
            window: documents that are packed together.
        """
        if not 0 <= condition_dropout <= 1:
            raise SettingsError(f"condition_dropout must be in 0..1, got {condition_dropout}")
        if word_dropout < 0 or not condition_dropout + word_dropout <= 1:
            raise SettingsError(
                f"word_dropout must be in 0..1, and at most 1 together with condition_dropout "
                f"{condition_dropout}; got {word_dropout}"
            )
        if seed < 0:
            raise SettingsError(f"seed must be zero or more, got {seed}")
        if min(context_length, rows_per_batch, window) < 1:
            raise SettingsError(
                "context_length, rows_per_batch and window must be positive, got "
                f"{context_length}, {rows_per_batch} and {window}"
            )
        if not shards:
            raise SettingsError("shards is empty; give at least one folder of prepared data")
        self._rows = _RowWriter(
            [_open_folder(path, vocabulary, context_length) for path in shards],
            context_length=context_length,
            vocabulary=vocabulary,
        )
        self._folders = self._rows.folders
        self._rows_per_batch = rows_per_batch
        self._seed = seed
        self._condition_dropout = condition_dropout
        self._word_dropout = word_dropout
        self._window = window
        self._bounds = np.cumsum(_draw_shares(self._folders, shards))
        self._orders: dict[tuple[int, int], npt.NDArray[np.int64]] = {}
        self._cursor = _Cursor(0, (0,) * len(self._folders))
        self._packed: list[list[_Place]] = []
        self._next_cursor = self._cursor
        self._next_row = 0
        self._load_window()

    @property
    def num_tokens(self) -> int:
        """Tokens in all folders together."""
        return sum(folder.num_tokens for folder in self._folders)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        rows: list[list[_Place]] = []
        while len(rows) < self._rows_per_batch:
            if self._next_row == len(self._packed):
                self._cursor, self._next_row = self._next_cursor, 0
                self._load_window()
            rows.append(self._packed[self._next_row])
            self._next_row += 1
        return self._rows.batch(rows)

    def state(self) -> dict[str, Any]:
        """Return where the loader stands, as plain JSON values."""
        return {
            "identity": self._identity(),
            "num_drawn": self._cursor.num_drawn,
            "per_folder": list(self._cursor.per_folder),
            "row": self._next_row,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue where `state` was taken: the next batches are equal."""
        if state["identity"] != self._identity():
            raise DataError(
                "the saved data position belongs to other shards, weights, seed, context length, "
                "condition or word dropout or window; resume with the settings it was saved with"
            )
        self._cursor = _Cursor(state["num_drawn"], tuple(state["per_folder"]))
        self._next_row = state["row"]
        self._load_window()

    def _identity(self) -> str:
        parts: list[Any] = [
            [
                [folder.manifest.vocabulary, len(folder), folder.num_tokens]
                for folder in self._folders
            ],
            self._bounds.tolist(),
            [self._seed, self._rows.context_length, self._condition_dropout, self._window],
        ]
        if self._word_dropout:
            # Positions without it stay what they were before there was such a share.
            parts.append(self._word_dropout)
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def _load_window(self) -> None:
        """Draw and pack the documents of the window that starts at the cursor."""
        cursor = self._cursor
        numbers = np.arange(cursor.num_drawn, cursor.num_drawn + self._window)
        choice = np.searchsorted(self._bounds, uniform(self._seed, _CHOICE, numbers), side="right")
        choice = np.minimum(choice, len(self._folders) - 1)
        places: list[_Place] = []
        ends = []
        for folder, start in enumerate(cursor.per_folder):
            stop = start + int(np.count_nonzero(choice == folder))
            places.extend(self._draw(folder, start, stop))
            ends.append(stop)
        lengths = np.array(
            [self._folders[place.folder].lengths[place.index] for place in places], dtype=np.int64
        )
        packed = pack(lengths, self._rows.context_length)
        order = np.random.default_rng([self._seed, _CHOICE, cursor.num_drawn]).permutation(
            len(packed)
        )
        self._packed = [[places[index] for index in packed[row]] for row in order]
        self._next_cursor = _Cursor(cursor.num_drawn + self._window, tuple(ends))

    def _draw(self, folder: int, start: int, stop: int) -> Iterator[_Place]:
        numbers = np.arange(start, stop)
        epochs, offsets = np.divmod(numbers, len(self._folders[folder]))
        for epoch in np.unique(epochs).tolist():
            indices = self._order(folder, epoch)[offsets[epochs == epoch]]
            chances = uniform(self._seed, _DROPOUT, folder, epoch, indices)
            for index, chance in zip(indices.tolist(), chances.tolist(), strict=True):
                yield _Place(folder, index, self._dropped(chance))

    def _dropped(self, chance: float) -> Literal["nothing", "words", "condition"]:
        if chance < self._condition_dropout:
            return "condition"
        is_wordless = chance < self._condition_dropout + self._word_dropout
        return "words" if is_wordless else "nothing"

    def _order(self, folder: int, epoch: int) -> npt.NDArray[np.int64]:
        key = (folder, epoch)
        if key not in self._orders:
            generator = np.random.default_rng([self._seed, folder, epoch])
            self._orders = {
                known: order
                for known, order in self._orders.items()
                if known[0] != folder or known[1] == epoch - 1
            }
            self._orders[key] = generator.permutation(len(self._folders[folder]))
        return self._orders[key]


def pass_once(
    path: Path, *, vocabulary: Vocabulary, context_length: int, rows_per_batch: int
) -> Iterator[Batch]:
    """Yield every document of a folder once, with its condition; the last batch may be smaller."""
    folder = _open_folder(path, vocabulary, context_length)
    writer = _RowWriter(
        [folder],
        context_length=context_length,
        vocabulary=vocabulary,
    )
    packed = pack(folder.lengths, context_length)
    for start in range(0, len(packed), rows_per_batch):
        rows = packed[start : start + rows_per_batch]
        yield writer.batch([[_Place(0, index) for index in row] for row in rows])


class _RowWriter:
    """Lays documents out as tensors."""

    def __init__(
        self, folders: Sequence[ShardFolder], *, context_length: int, vocabulary: Vocabulary
    ) -> None:
        self.folders = folders
        self.context_length = context_length
        self._null_id = vocabulary.null_id
        self._pad_id = vocabulary.pad_id
        self._num_text_ids = vocabulary.num_text_ids
        self._count = np.arange(context_length)

    def batch(self, rows: Sequence[Sequence[_Place]]) -> Batch:
        shape = (len(rows), self.context_length)
        ids = np.full(shape, self._pad_id, dtype=np.int64)
        targets = np.full(shape, IGNORE_INDEX, dtype=np.int64)
        positions = np.zeros(shape, dtype=np.int64)
        document_ids = np.zeros(shape, dtype=np.int64)
        modality = np.zeros(shape, dtype=np.int64)
        for row, places in enumerate(rows):
            start = 0
            for number, place in enumerate(places):
                document, flags = self.folders[place.folder].tokens(place.index)
                stop = start + len(document)
                following, counts = document[1:], flags[1:]
                targets[row, start : stop - 1] = np.where(counts & LOSS, following, IGNORE_INDEX)
                modality[row, start : stop - 1] = (counts & IMAGE) // IMAGE
                if place.dropped == "condition":
                    document = np.where(flags & CONDITION, self._null_id, document)
                elif place.dropped == "words":
                    document = self._without_words(document, flags)
                ids[row, start:stop] = document
                positions[row, start:stop] = self._count[: stop - start]
                document_ids[row, start:stop] = number
                start = stop
            positions[row, start:] = self._count[: self.context_length - start]
            document_ids[row, start:] = len(places)
        return Batch(
            *(torch.from_numpy(part) for part in (ids, targets, positions, document_ids, modality))
        )

    def _without_words(
        self, document: npt.NDArray[np.int32], flags: npt.NDArray[np.uint8]
    ) -> npt.NDArray[np.int32]:
        """Return a document without its condition's words, as guidance by pictures has it.

        Words that are all of a condition stay: dropping those is dropping the condition.
        """
        is_condition = flags & CONDITION != 0
        if not (is_condition & (flags & IMAGE != 0)).any():
            return document
        is_word = is_condition & (document < self._num_text_ids)
        return np.where(is_word, np.int32(self._null_id), document)


def _open_folder(path: Path, vocabulary: Vocabulary, context_length: int) -> ShardFolder:
    folder = ShardFolder(Path(path), fingerprint=vocabulary.fingerprint)
    if len(folder) == 0:
        raise DataError(f"{path} holds no documents; prepare it from a source that has some")
    too_long = int(np.count_nonzero(folder.lengths > context_length))
    if too_long:
        raise DataError(
            f"{too_long} of {len(folder)} documents in {path} are longer than the context length "
            f"{context_length} (the longest has {folder.lengths.max()} ids); prepare the data "
            f"with context_length={context_length} or train with a longer context"
        )
    return folder


def _draw_shares(
    folders: Sequence[ShardFolder], shards: Mapping[Path, float] | Sequence[Path]
) -> npt.NDArray[np.float64]:
    """Return the probability that a document comes from each folder."""
    if not isinstance(shards, Mapping):
        counts = np.array([len(folder) for folder in folders], dtype=np.float64)
        return _normalised(counts)
    weights = np.array(list(shards.values()), dtype=np.float64)
    if not (np.isfinite(weights).all() and (weights >= 0).all() and weights.sum() > 0):
        raise SettingsError(
            f"weights of shards must be zero or more and not all zero, got {list(weights)}"
        )
    shares = weights / np.array([folder.lengths.mean() for folder in folders])
    return _normalised(shares)


def _normalised(shares: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    result: npt.NDArray[np.float64] = shares / shares.sum()
    return result
