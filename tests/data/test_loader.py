"""The loader: exact resumption, every document once an epoch, targets, mixture, dropout."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch

from mmgen.data.loader import IGNORE_INDEX, Batch, PackedLoader, pass_once
from mmgen.data.shards import CONDITION, IMAGE, LOSS, Manifest, Sample, write_shard
from mmgen.errors import DataError, SettingsError
from mmgen.vocabulary import Vocabulary

VOCABULARY = Vocabulary.build(num_text_ids=5000, text_fingerprint="t")


def make_folder(path: Path, lengths: Sequence[int], first_id: int = 0) -> Path:
    """Documents whose first id is unique; the first third is condition, the rest loss."""
    path.mkdir(parents=True)
    samples = []
    for index, length in enumerate(lengths):
        ids = np.full(length, first_id + index, dtype=np.int32)
        flags = np.zeros(length, dtype=np.uint8)
        flags[1 : length // 3] = CONDITION
        flags[length // 3 :] = LOSS
        flags[length // 2 : -1] |= IMAGE
        samples.append(Sample(row=str(index), variant=0, ids=ids, flags=flags))
    half = len(samples) // 2
    shards = tuple(
        write_shard(path / f"{start}.arrow", samples[start:stop], start=start, stop=stop)
        for start, stop in ((0, half), (half, len(samples)))
    )
    Manifest(
        vocabulary=VOCABULARY.fingerprint, config={}, num_rows=len(samples), shards=shards
    ).write(path)
    return path


def make_loader(
    shards: dict[Path, float] | list[Path],
    *,
    seed: int = 3,
    condition_dropout: float = 0.0,
    window: int = 64,
    context_length: int = 64,
) -> PackedLoader:
    return PackedLoader(
        shards,
        vocabulary=VOCABULARY,
        context_length=context_length,
        rows_per_batch=4,
        seed=seed,
        condition_dropout=condition_dropout,
        window=window,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lengths = np.random.default_rng(1).integers(6, 30, size=150)
    return make_folder(tmp_path / "a", lengths.tolist())


def equal(first: Batch, second: Batch) -> bool:
    return all(
        torch.equal(getattr(first, item.name), getattr(second, item.name)) for item in fields(Batch)
    )


def documents(batch: Batch) -> list[int]:
    """Id of each document in the batch (its ids are all alike)."""
    found = []
    for ids, positions in zip(batch.ids, batch.positions, strict=True):
        starts = (positions == 0) & (ids != VOCABULARY.pad_id)
        found.extend(ids[starts].tolist())
    return found


def test_the_same_seed_gives_the_same_batches(folder: Path) -> None:
    one, two, other = make_loader([folder]), make_loader([folder]), make_loader([folder], seed=4)
    pairs = [(next(one), next(two), next(other)) for _ in range(12)]
    assert all(equal(first, second) for first, second, _ in pairs)
    assert not any(equal(first, third) for first, _, third in pairs)


@pytest.mark.parametrize("num_before", [0, 1, 7, 30])
def test_resumes_exactly(folder: Path, tmp_path: Path, num_before: int) -> None:
    shards = {folder: 1.0, make_folder(tmp_path / "b", [20] * 40, 1000): 2.0}
    loader = make_loader(shards, condition_dropout=0.3)
    for _ in range(num_before):
        next(loader)
    state = json.loads(json.dumps(loader.state()))
    expected = [next(loader) for _ in range(20)]
    resumed = make_loader(shards, condition_dropout=0.3)
    next(resumed)
    resumed.restore(state)
    assert all(equal(batch, next(resumed)) for batch in expected)


def test_refuses_a_position_in_other_data(folder: Path) -> None:
    state = make_loader([folder]).state()
    with pytest.raises(DataError, match="other shards"):
        make_loader([folder], seed=9).restore(state)


def test_each_epoch_shows_each_document_once(folder: Path) -> None:
    loader = make_loader([folder], window=150)
    epochs = []
    for _ in range(3):
        seen: list[int] = []
        while len(seen) < 150:
            seen.extend(documents(next(loader)))
        epochs.append(seen)
    counts = Counter(document for seen in epochs for document in seen)
    assert set(counts) == set(range(150))
    assert max(counts.values()) - min(counts.values()) <= 1
    assert epochs[0][:50] != epochs[1][:50]


def test_lays_documents_out(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "a", [9, 9, 9], 100)
    (batch,) = pass_once(folder, vocabulary=VOCABULARY, context_length=20, rows_per_batch=4)
    assert batch.ids.shape == (2, 20)
    ids = batch.ids[0].tolist()
    assert ids == [100] * 9 + [101] * 9 + [VOCABULARY.pad_id] * 2
    assert batch.positions[0].tolist() == [*range(9), *range(9), 0, 1]
    assert batch.document_ids[0].tolist() == [0] * 9 + [1] * 9 + [2] * 2
    ignored = IGNORE_INDEX
    target = [ignored] * 2 + [100] * 6 + [ignored]
    assert batch.targets[0, :9].tolist() == target
    assert batch.targets[0, 18:].tolist() == [ignored] * 2
    assert batch.modality[0, :9].tolist() == [0, 0, 0, 1, 1, 1, 1, 0, 0]
    assert all(getattr(batch, item.name).dtype == torch.int64 for item in fields(Batch))


def test_a_pass_shows_everything_once(folder: Path) -> None:
    batches = list(pass_once(folder, vocabulary=VOCABULARY, context_length=64, rows_per_batch=4))
    seen = [document for batch in batches for document in documents(batch)]
    assert sorted(seen) == list(range(150))


def test_mixes_tokens_by_weight(tmp_path: Path) -> None:
    shards = {
        make_folder(tmp_path / "long", [60] * 30): 1.0,
        make_folder(tmp_path / "short", [10] * 30, 1000): 3.0,
    }
    loader = make_loader(shards, window=500)
    counts: Counter[bool] = Counter()
    for _ in range(100):
        ids = next(loader).ids
        counts[True] += int(((ids >= 1000) & (ids != VOCABULARY.pad_id)).sum())
        counts[False] += int((ids < 1000).sum())
    assert counts[True] / counts[False] == pytest.approx(3, rel=0.1)


def test_drops_conditions_anew_each_epoch(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "a", [30] * 100)
    loader = make_loader([folder], condition_dropout=0.25, window=100)
    dropped: list[set[int]] = [set() for _ in range(4)]
    for epoch in range(4):
        for _ in range(50 // 4 + 1):
            batch = next(loader)
            for start in (0, 30):
                part = batch.ids[:, start : start + 30]
                is_null = part == VOCABULARY.null_id
                for row in range(4):
                    if is_null[row].any():
                        assert is_null[row].nonzero().flatten().tolist() == list(range(1, 10))
                        dropped[epoch].add(int(part[row, 0]))
    assert 0.15 < np.mean([len(part) / 100 for part in dropped]) < 0.35
    assert dropped[0] != dropped[1]


def test_dropping_always_and_never(folder: Path) -> None:
    always, never = (next(make_loader([folder], condition_dropout=share)) for share in (1.0, 0.0))
    assert (always.ids == VOCABULARY.null_id).any()
    assert not (never.ids == VOCABULARY.null_id).any()
    assert torch.equal(always.targets, never.targets)


def test_refuses_documents_longer_than_a_row(folder: Path) -> None:
    with pytest.raises(DataError, match=r"of 150 documents .* longer than the context length 16"):
        make_loader([folder], context_length=16)


def test_refuses_an_empty_folder(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "a", [])
    with pytest.raises(DataError, match="no documents"):
        make_loader([folder])


def test_refuses_bad_settings(folder: Path) -> None:
    with pytest.raises(SettingsError, match=r"condition_dropout.*1\.5"):
        make_loader([folder], condition_dropout=1.5)
    with pytest.raises(SettingsError, match="positive"):
        make_loader([folder], window=0)
    with pytest.raises(SettingsError, match="seed"):
        make_loader([folder], seed=-1)
    with pytest.raises(SettingsError, match="empty"):
        make_loader([])
    with pytest.raises(SettingsError, match="weights"):
        make_loader({folder: -1.0})
