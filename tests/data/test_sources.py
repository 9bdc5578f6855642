"""Parquet packs: columns, filters, balance, and what is said of what is missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmgen.data.sources import ParquetSource, Share
from mmgen.errors import DataError
from mmgen.pictures import open_picture

Writer = Callable[..., Path]


def open_pack(path: Path, **options: Any) -> ParquetSource:
    return ParquetSource(path, picture_column="webp", **options)


def test_reads_rows_in_any_order(write_pack: Writer) -> None:
    source = open_pack(
        write_pack(), caption_columns=["caption", "name"], attributes={"name": "name"}
    )
    assert source.num_rows == 6
    for index in (5, 0, 4, 2):
        row = source.row(index)
        assert row.id == f"r{index}"
        assert isinstance(row.picture, bytes)
        assert open_picture(row.picture).getpixel((0, 0)) == (40 * index, 0, 0)
    assert source.row(0).captions == ("Caption 0.", "apple")
    assert source.row(2).captions == ("Caption 2.",)


def test_leaves_out_empty_attributes_and_adds_constants(write_pack: Writer) -> None:
    source = open_pack(
        write_pack(),
        attributes={"name": "name", "keywords": "words"},
        constants={"style": "photo"},
    )
    assert source.attributes(0) == {"name": "apple", "keywords": "a, b", "style": "photo"}
    assert source.attributes(2) == {"keywords": "c", "style": "photo"}
    assert source.row(4).attributes == {"keywords": "d", "style": "photo"}


def test_keeps_rows_that_pass_all_filters(write_pack: Writer) -> None:
    path = write_pack()
    source = open_pack(path, filters={"split": ["train"], "style": ["flat"]})
    assert [source.row(index).id for index in range(source.num_rows)] == ["r0", "r1", "r5"]
    both = open_pack(path, filters={"split": ["val", "test"]})
    assert [both.row(index).id for index in range(both.num_rows)] == ["r2", "r4"]


def test_rows_take_turns_with_their_like(write_pack: Writer) -> None:
    source = open_pack(write_pack(), balance=["style", "base"])
    shares = [source.share(index) for index in range(6)]
    assert shares[0] == Share(0, 0, 3)
    assert shares[1] == Share(0, 1, 3)
    assert shares[5] == Share(0, 2, 3)
    assert [shares[index].size for index in (2, 3, 4)] == [1, 1, 1]
    assert open_pack(write_pack()).share(3) == Share(3, 0, 1)


def test_reads_pictures_in_structs(tmp_path: Path, write_pack: Writer) -> None:
    table = pq.read_table(write_pack())
    structs = [{"bytes": item, "path": None} for item in table.column("webp").to_pylist()]
    path = tmp_path / "structs.parquet"
    pq.write_table(pa.table({"image": structs}), path)
    row = ParquetSource(path, picture_column="image").row(1)
    assert row.id == "1"
    assert row.picture == structs[1]["bytes"]


def test_a_missing_column_lists_those_there_are(write_pack: Writer) -> None:
    with pytest.raises(DataError, match=r"no column colour, title; its columns are id, webp"):
        open_pack(write_pack(), caption_columns=["title"], attributes={"colour": "colour"})
    with pytest.raises(DataError, match="no column image"):
        ParquetSource(write_pack(), picture_column="image")


def test_a_filter_that_keeps_nothing_lists_the_values(write_pack: Writer) -> None:
    with pytest.raises(DataError, match=r"no row .* dev in column split; .*test, train, val"):
        open_pack(write_pack(), filters={"split": ["dev"]})


def test_a_row_without_picture_is_an_error_of_that_row(write_pack: Writer) -> None:
    pictures: list[bytes | None] = [b"x", None, b"y", b"z", b"", b"w"]
    source = open_pack(write_pack(webp=pictures))
    assert source.row(0).picture == b"x"
    for index in (1, 4):
        with pytest.raises(DataError, match=f"row r{index} has no picture"):
            source.row(index)


def test_refuses_what_is_no_parquet(tmp_path: Path) -> None:
    path = tmp_path / "pack.parquet"
    with pytest.raises(DataError, match="there is no file"):
        open_pack(path)
    path.write_bytes(b"hello")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        open_pack(path)


def test_description_follows_the_options(write_pack: Writer) -> None:
    path = write_pack()
    assert open_pack(path).description == open_pack(path).description
    assert open_pack(path).description != open_pack(path, balance=["style"]).description
