"""The log holds each step once, whatever happened, and can be drawn."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmgen.errors import OutputError
from mmgen.train.records import RunRecords, draw_curves, read_records


def write(directory: Path, steps: list[int], *, resumed_at: int) -> None:
    records = RunRecords(directory, step=resumed_at)
    for step in steps:
        records.write({"kind": "train", "step": step, "loss": 1 / step, "lr": 0.1, "note": "x"})
    records.close()


def test_a_resumed_run_drops_what_came_after_its_state(tmp_path: Path) -> None:
    write(tmp_path, [2, 4, 6], resumed_at=0)
    write(tmp_path, [6, 8], resumed_at=4)
    assert [record["step"] for record in read_records(tmp_path / "log.jsonl")] == [2, 4, 6, 8]


def test_a_line_cut_short_is_left_out(tmp_path: Path) -> None:
    write(tmp_path, [2, 4], resumed_at=0)
    log = tmp_path / "log.jsonl"
    log.write_text(log.read_text() + '{"kind": "tr')
    assert [record["step"] for record in read_records(log)] == [2, 4]
    write(tmp_path, [6], resumed_at=4)
    assert [record["step"] for record in read_records(log)] == [2, 4, 6]


def test_curves_are_a_png_even_of_little(tmp_path: Path) -> None:
    draw_curves([{"kind": "eval", "step": 1, "loss": 2.0}], tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert list(tmp_path.iterdir()) == [tmp_path / "curves.png"]


def test_a_log_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    records = RunRecords(tmp_path, step=0)
    (tmp_path / "log.jsonl").mkdir()
    with pytest.raises(OutputError, match=r"log\.jsonl"):
        records.write({"kind": "train", "step": 1})
    records.close()
