from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmgen.batch.expansion import ExpandedReader, Expansion, parse_grid
from mmgen.batch.readers import open_reader
from mmgen.batch.rows import BrokenRow, Row
from mmgen.errors import SettingsError


def expanded(tmp_path: Path, lines: list[object], expansion: Expansion) -> list[Row | BrokenRow]:
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(item) + "\n" for item in lines))
    return list(ExpandedReader(open_reader(str(path), meaning="prompt"), expansion).rows())


def test_every_combination_is_a_row_with_an_id_and_a_place_of_its_own(tmp_path: Path) -> None:
    grid = parse_grid(["guidance=1, 3", "size=32x32,64x64"])
    rows = expanded(
        tmp_path, [{"id": "a", "prompt": "x"}, {"prompt": "y"}], Expansion(number=2, grid=grid)
    )
    assert [row.index for row in rows] == list(range(16))
    assert len({row.id for row in rows}) == 16
    assert rows[0].id == "a [guidance=1 size=32x32 n=1]"
    assert rows[15].id == "1 [guidance=3 size=64x64 n=2]"
    assert isinstance(rows[3], Row)
    assert rows[3].fields == {"prompt": "x", "guidance": "1", "size": "64x64"}


def test_rows_have_their_own_number_and_seeds_in_a_row(tmp_path: Path) -> None:
    rows = expanded(
        tmp_path, [{"prompt": "x", "n": 3, "seed": 7}, {"prompt": "y"}], Expansion(number=1)
    )
    assert [row.id for row in rows] == ["0 [n=1]", "0 [n=2]", "0 [n=3]", "1"]
    assert [row.fields.get("seed") for row in rows if isinstance(row, Row)] == [7, 8, 9, None]
    assert all("n" not in row.fields for row in rows if isinstance(row, Row))


def test_nothing_asked_changes_nothing(tmp_path: Path) -> None:
    lines: list[object] = [{"prompt": "x"}, 3, {"id": "b", "prompt": "z"}]
    rows = expanded(tmp_path, lines, Expansion())
    assert rows == list(open_reader(str(tmp_path / "in.jsonl"), meaning="prompt").rows())


@pytest.mark.parametrize(
    ("n", "message"), [(0, "n must be 1 or more"), ("many", "whole number"), (10**6, "at most")]
)
def test_a_bad_number_breaks_its_row_alone(tmp_path: Path, n: object, message: str) -> None:
    rows = expanded(tmp_path, [{"prompt": "x", "n": n}, {"prompt": "y"}], Expansion(number=2))
    assert isinstance(rows[0], BrokenRow) and message in rows[0].reason
    assert [row.index for row in rows] == [0, 1, 2]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["guidance"], "a grid is like guidance=1,3,5"),
        (["colour=red"], "a grid is like"),
        (["guidance=1,,2"], "a grid is like"),
        (["guidance=1,1"], "the same value of guidance twice"),
        (["guidance=1", "guidance=2"], "has guidance twice"),
    ],
)
def test_bad_grids_are_refused(texts: list[str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        parse_grid(texts)
    with pytest.raises(SettingsError, match="must be 1 or more"):
        Expansion(number=0)
    with pytest.raises(SettingsError, match="one row would become"):
        Expansion(number=5001, grid={"guidance": ("1", "2")})
