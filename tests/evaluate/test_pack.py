"""Reading packs, and what a wrong one is told."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmgen.errors import DataError, SettingsError
from mmgen.evaluate.pack import (
    EmojiRow,
    fingerprint,
    parse_filters,
    read_emoji_pack,
    read_pictures,
)


def test_rows_keep_their_order_and_open_as_pictures(rows: list[EmojiRow]) -> None:
    assert rows[0].id == "red/square-2"
    assert rows[0].open().size == (64, 64)
    assert len(rows) == 36


def test_pictures_are_filtered_and_limited(pack: Path, rows: list[EmojiRow]) -> None:
    filters = {"split": "val", "style": "red"}
    pictures = read_pictures(pack, column="webp64", filters=filters, limit=2)
    bars = [row for row in rows if row.concept == "bar" and row.style == "red"]
    assert [p.tobytes() for p in pictures] == [row.open().tobytes() for row in bars[:2]]
    assert len(read_pictures(pack, column="webp64", filters=filters, limit=None)) == 3


def test_a_filter_that_fits_nothing_is_an_error(pack: Path) -> None:
    with pytest.raises(DataError, match="has test in column split"):
        read_pictures(pack, column="webp64", filters={"split": "test"}, limit=None)


def test_a_missing_column_is_named_with_those_there_are(pack: Path) -> None:
    with pytest.raises(DataError, match="no column webp128"):
        read_pictures(pack, column="webp128", filters={}, limit=None)


def test_a_column_without_pictures_is_refused(pack: Path) -> None:
    with pytest.raises(DataError, match="no picture in concept"):
        read_pictures(pack, column="concept", filters={}, limit=None)


def test_a_column_of_structs_with_bytes_is_read(pack: Path, tmp_path: Path) -> None:
    data = pq.read_table(pack).column("webp64").to_pylist()[:2]
    path = tmp_path / "structs.parquet"
    structs = [{"bytes": item, "path": None} for item in data]
    pq.write_table(pa.Table.from_pylist([{"image": item} for item in structs]), path)
    pictures = read_pictures(path, column="image", filters={}, limit=None)
    assert [picture.size for picture in pictures] == [(64, 64)] * 2


def test_contradicting_filters_leave_nothing(pack: Path) -> None:
    filters = {"split": "val", "concept": "square"}
    with pytest.raises(DataError, match="no row with split=val, concept=square; check --filter"):
        read_pictures(pack, column="webp64", filters=filters, limit=None)


def test_files_that_are_missing_or_no_parquet(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no file"):
        read_emoji_pack(tmp_path / "none.parquet")
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"PAR1 not really")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        read_emoji_pack(broken)


def test_filters_are_column_equals_value() -> None:
    assert parse_filters(["split=val", "a=b=c", "d="]) == {"split": "val", "a": "b=c", "d": ""}
    for bad in ("split", "=val"):
        with pytest.raises(SettingsError, match="column=value"):
            parse_filters([bad])


def test_the_fingerprint_depends_on_pictures_and_concepts(rows: list[EmojiRow]) -> None:
    assert fingerprint(rows) == fingerprint(list(rows))
    assert len({fingerprint(rows), fingerprint(rows[1:]), fingerprint(rows[::-1])}) == 3
