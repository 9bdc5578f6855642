"""Dropping the words of a condition alone, as guidance by pictures and words apart has them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from mmgen.checkpoint import Checkpoint, open_checkpoint
from mmgen.condition import null_condition, null_words
from mmgen.data.loader import PackedLoader
from mmgen.data.prepare import flags_of
from mmgen.data.shards import Manifest, Sample, write_shard
from mmgen.document import Document, Image, Text, Turn
from mmgen.errors import DataError, SettingsError

NUM_DOCUMENTS = 60


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint: Path) -> Checkpoint:
    return open_checkpoint(tiny_checkpoint)


def documents(kind: str) -> list[Document]:
    """Edits of a picture, or drawings from words alone; each with another last word."""

    def shown(red: int) -> Image:
        return Image(picture=Pillow.new("RGB", (32, 32), (red, 0, 0)), tokenizer="palette")

    said = [(shown(4 * n),) if kind == "edits" else () for n in range(NUM_DOCUMENTS)]
    return [
        Document(
            turns=(
                Turn("user", (*pictures, Text(f"draw number {n}"))),
                Turn("assistant", (shown(255),)),
            )
        )
        for n, pictures in enumerate(said)
    ]


@pytest.fixture(scope="module")
def folders(
    checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Path, list[list[int]]]]:
    """Shards of both kinds, with the ids of their documents."""
    codec = checkpoint.codec()
    found = {}
    for kind in ("edits", "drawings"):
        path = tmp_path_factory.mktemp(kind)
        encoded = [codec.encode(document) for document in documents(kind)]
        samples = [
            Sample(row=str(n), variant=0, ids=item.ids, flags=flags_of(item))
            for n, item in enumerate(encoded)
        ]
        shard = write_shard(path / "0.arrow", samples, start=0, stop=len(samples))
        Manifest(
            vocabulary=codec.vocabulary.fingerprint,
            config={},
            num_rows=len(samples),
            shards=(shard,),
        ).write(path)
        found[kind] = path, [item.ids.tolist() for item in encoded]
    return found


def loader(checkpoint: Checkpoint, path: Path, **settings: float) -> PackedLoader:
    return PackedLoader(
        [path],
        vocabulary=checkpoint.vocabulary,
        context_length=128,
        rows_per_batch=4,
        seed=3,
        window=NUM_DOCUMENTS,
        **{"condition_dropout": 0.0} | settings,
    )


def seen(batches: PackedLoader, number: int) -> list[list[int]]:
    """Return the documents of the next batches."""
    found: list[list[int]] = []
    for _ in range(number):
        batch = next(batches)
        bos_id = int(batch.ids[0, 0])
        for ids, owner in zip(batch.ids, batch.document_ids, strict=True):
            parts = [ids[owner == one].tolist() for one in owner.unique()]
            # What else a row has is its filling.
            found += [part for part in parts if part[0] == bos_id]
    return found


def test_some_documents_lose_their_words_and_others_all(
    checkpoint: Checkpoint, folders: dict[str, tuple[Path, list[list[int]]]]
) -> None:
    path, ids = folders["edits"]
    vocabulary = checkpoint.vocabulary
    wordless = [null_words(item, vocabulary) for item in ids]
    blank = [null_condition(item, vocabulary) for item in ids]
    found = seen(loader(checkpoint, path, condition_dropout=0.2, word_dropout=0.3), 60)
    counts = [sum(item in kind for item in found) for kind in (ids, wordless, blank)]
    assert sum(counts) == len(found) > 150
    shares = np.array(counts) / len(found)
    np.testing.assert_allclose(shares, [0.5, 0.3, 0.2], atol=0.1)


def test_words_that_are_all_of_a_condition_stay(
    checkpoint: Checkpoint, folders: dict[str, tuple[Path, list[list[int]]]]
) -> None:
    path, ids = folders["drawings"]
    assert all(item in ids for item in seen(loader(checkpoint, path, word_dropout=1.0), 8))


def test_without_it_batches_and_positions_are_what_they_were(
    checkpoint: Checkpoint, folders: dict[str, tuple[Path, list[list[int]]]]
) -> None:
    path, _ = folders["edits"]
    plain = loader(checkpoint, path, condition_dropout=0.2)
    explicit = loader(checkpoint, path, condition_dropout=0.2, word_dropout=0.0)
    assert plain.state() == explicit.state()
    assert all(torch.equal(next(plain).ids, next(explicit).ids) for _ in range(10))
    # The whole condition is dropped of the same documents, whatever else is.
    null_id = checkpoint.vocabulary.null_id
    other = loader(checkpoint, path, condition_dropout=0.2, word_dropout=0.5)
    plain = loader(checkpoint, path, condition_dropout=0.2)
    for _ in range(10):
        without, beside = next(plain), next(other)
        assert ((without.ids != null_id) | (beside.ids == null_id)).all()
        assert torch.equal(without.targets, beside.targets)


def test_a_run_goes_on_exactly_and_only_with_the_same_share(
    checkpoint: Checkpoint, folders: dict[str, tuple[Path, list[list[int]]]]
) -> None:
    path, _ = folders["edits"]
    first = loader(checkpoint, path, word_dropout=0.3)
    for _ in range(7):
        next(first)
    state = first.state()
    resumed = loader(checkpoint, path, word_dropout=0.3)
    resumed.restore(state)
    assert all(torch.equal(next(first).ids, next(resumed).ids) for _ in range(10))
    for share in (0.0, 0.2):
        with pytest.raises(DataError, match="condition or word dropout or window"):
            loader(checkpoint, path, word_dropout=share).restore(state)


@pytest.mark.parametrize("share", [-0.1, 0.95, float("nan")])
def test_shares_above_all_are_refused(
    checkpoint: Checkpoint, folders: dict[str, tuple[Path, list[list[int]]]], share: float
) -> None:
    with pytest.raises(SettingsError, match="at most 1 together with condition_dropout"):
        loader(checkpoint, folders["edits"][0], condition_dropout=0.1, word_dropout=share)
    loader(checkpoint, folders["edits"][0], condition_dropout=0.1, word_dropout=0.9)
