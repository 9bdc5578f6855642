"""Progress as lines and as a bar, on streams that are no terminal and one that pretends to be."""

from __future__ import annotations

import io

from rich.console import Console

from mmgen.train.progress import BarProgress, LineProgress, SilentProgress, open_progress


def test_lines_are_plain_and_not_too_many() -> None:
    stream = io.StringIO()
    progress = LineProgress(stream, seconds=1e9)
    progress.begin("work")
    for step in range(1, 11):
        progress.update(step / 10, f"step {step}")
    progress.note("kept")
    progress.end()
    assert stream.getvalue() == "work\n   10.0%  step 1\n  100.0%  step 10\nkept\n"


def test_each_piece_of_work_starts_with_a_line() -> None:
    stream = io.StringIO()
    progress = LineProgress(stream, seconds=1e9)
    for title in ("one", "two"):
        progress.begin(title)
        progress.update(0.5, "half")
    assert stream.getvalue().splitlines() == ["one", "   50.0%  half", "two", "   50.0%  half"]


def test_a_bar_shows_title_share_and_detail() -> None:
    stream = io.StringIO()
    progress = BarProgress(Console(file=stream, force_terminal=True, width=120))
    progress.update(0.1, "before anything has begun")
    progress.begin("first")
    progress.begin("second")
    progress.update(0.5, "step 3")
    progress.note("[kept] as it is")
    progress.end()
    progress.end()
    shown = stream.getvalue()
    assert "second" in shown and "50%" in shown and "step 3" in shown and "[kept] as it is" in shown
    assert "before anything" not in shown


def test_a_stream_that_is_no_terminal_gets_lines() -> None:
    assert isinstance(open_progress(io.StringIO()), LineProgress)


def test_silence() -> None:
    progress = SilentProgress()
    progress.begin("work")
    progress.update(1.0, "done")
    progress.note("nothing")
    progress.end()
