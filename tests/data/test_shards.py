"""Shards give back what was written, and a damaged or foreign folder is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mmgen.data.shards import (
    CONDITION,
    IMAGE,
    LOSS,
    MANIFEST_NAME,
    Manifest,
    Sample,
    ShardFolder,
    write_shard,
)
from mmgen.errors import DataError


def sample(row: str, ids: list[int], variant: int = 0) -> Sample:
    flags = np.array([LOSS | IMAGE if id_ > 50 else CONDITION for id_ in ids], dtype=np.uint8)
    return Sample(row=row, variant=variant, ids=np.array(ids, dtype=np.int32), flags=flags)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    first = write_shard(
        tmp_path / "shard-00000.arrow",
        [sample("a", [1, 2, 60]), sample("a", [3], variant=1)],
        start=0,
        stop=1,
    )
    second = write_shard(
        tmp_path / "shard-00001.arrow", [], start=1, stop=2, refused=[("b", "no picture")]
    )
    third = write_shard(
        tmp_path / "shard-00002.arrow", [sample("c", [70, 80, 90, 4])], start=2, stop=3
    )
    manifest = Manifest(vocabulary="f00d", config={"x": 1}, num_rows=3)
    replace(manifest, shards=(first, second, third)).write(tmp_path)
    return tmp_path


def test_gives_back_every_document(folder: Path) -> None:
    opened = ShardFolder(folder, fingerprint="f00d")
    assert len(opened) == 3
    assert opened.lengths.tolist() == [3, 1, 4]
    assert [opened.sample(index).row for index in range(3)] == ["a", "a", "c"]
    assert [opened.sample(index).variant for index in range(3)] == [0, 1, 0]
    ids, flags = opened.tokens(2)
    assert ids.tolist() == [70, 80, 90, 4]
    assert flags.tolist() == [LOSS | IMAGE] * 3 + [CONDITION]
    assert opened.num_tokens == 8


def test_manifest_counts(folder: Path) -> None:
    manifest = Manifest.read(folder)
    assert manifest == ShardFolder(folder).manifest
    assert manifest.is_complete
    assert manifest.num_documents == 3
    assert manifest.num_tokens == 8
    assert manifest.refused == (("b", "no picture"),)
    assert manifest.shards[2].num_image_tokens == manifest.shards[2].num_loss_tokens == 3


def test_an_unfinished_manifest_knows_where_to_go_on(folder: Path) -> None:
    manifest = replace(Manifest.read(folder), num_rows=10)
    assert not manifest.is_complete
    assert manifest.next_row == 3
    assert replace(manifest, shards=()).next_row == 0


def test_refuses_another_vocabulary_naming_both(folder: Path) -> None:
    with pytest.raises(DataError, match=r"f00d.*beef"):
        ShardFolder(folder, fingerprint="beef")


def test_refuses_a_shard_cut_short(folder: Path) -> None:
    path = folder / "shard-00002.arrow"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"shard-00002\.arrow has .* prepare the data again"):
        ShardFolder(folder)


def test_refuses_a_shard_with_foreign_contents(folder: Path) -> None:
    path = folder / "shard-00002.arrow"
    size = path.stat().st_size
    path.write_bytes(b"\0" * size)
    with pytest.raises(DataError, match="cannot be read"):
        ShardFolder(folder)


def test_refuses_a_missing_shard(folder: Path) -> None:
    (folder / "shard-00000.arrow").unlink()
    with pytest.raises(DataError, match=r"shard-00000\.arrow .*missing"):
        ShardFolder(folder)


def test_refuses_a_shard_that_disagrees_with_the_manifest(folder: Path) -> None:
    content = json.loads((folder / MANIFEST_NAME).read_text())
    content["shards"][0]["num_documents"] = 9
    (folder / MANIFEST_NAME).write_text(json.dumps(content))
    with pytest.raises(DataError, match="does not hold"):
        ShardFolder(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no prepared data"),
        ("{", "cannot read"),
        ("[]", "does not describe"),
        ('{"format": "mmgen-shards", "version": 9}', "version 9"),
        ('{"format": "mmgen-shards", "version": 1}', "damaged"),
    ],
)
def test_refuses_a_broken_manifest(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / MANIFEST_NAME).write_text(content)
    with pytest.raises(DataError, match=message):
        Manifest.read(tmp_path)
