"""Plain texts from Parquet, one file or a folder."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmgen.data.texts import TextSource
from mmgen.errors import DataError, SettingsError


def test_a_column_with_filter_and_removal(tmp_path: Path) -> None:
    path = tmp_path / "stories.parquet"
    texts = ["One <|image:a|> day.", "Not this.", "  ", "Then."]
    splits = ["train", "val", "train", "train"]
    pq.write_table(pa.table({"text": texts, "split": splits}), path)
    source = TextSource(path, filters={"split": ["train"]}, remove=r"<\|image:[^|]*\|>")
    assert source.num_rows == 3
    assert source.row(0).text == "One  day."
    assert source.row(2).text == "Then."
    with pytest.raises(DataError, match="empty"):
        source.row(1)
    with pytest.raises(DataError, match=r"no column story; its columns are text, split"):
        TextSource(path, column="story")


def test_files(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("Second.\n")
    (tmp_path / "a.txt").write_text("First.\n")
    source = TextSource(tmp_path)
    assert [source.row(index).text for index in range(source.num_rows)] == ["First.", "Second."]
    assert TextSource(tmp_path / "b.txt").row(0).text == "Second."
    (tmp_path / "b.txt").write_bytes(b"\xff\xff")
    with pytest.raises(DataError, match="as text"):
        TextSource(tmp_path).row(1)


def test_refuses_nothing_and_bad_patterns(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no texts"):
        TextSource(tmp_path)
    with pytest.raises(SettingsError, match="regular expression"):
        TextSource(tmp_path, remove="(")
