"""Progress where nobody watches a bar."""

from __future__ import annotations

import pytest

from mmgen.cli.progress import watched


def test_items_pass_and_a_stage_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(watched(["a", "b"], "counting")) == ["a", "b"]
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "counting (2)\n"


def test_nothing_is_taken_before_it_is_asked_for() -> None:
    items = watched(range(10**9), "counting")
    assert next(items) == 0
