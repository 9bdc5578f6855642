"""What was measured is found again, by what decides it alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from mmgen.authoring.starting_points import grid, ordered
from mmgen.errors import DataError
from mmgen.evaluate.comparison import compare
from mmgen.evaluate.findings import Findings, restored
from mmgen.evaluate.progress import unwatched
from mmgen.evaluate.yardstick import Candidate
from mmgen.pictures import to_picture
from mmgen.testing import draw_picture


@dataclass(frozen=True)
class Point:
    share: float
    names: tuple[str, ...]
    size: tuple[int, int] | None = None


@dataclass(frozen=True)
class Line:
    points: tuple[Point, ...]
    best: Point | None


def test_a_finding_is_measured_once(tmp_path: Path) -> None:
    taken_up: list[str] = []
    findings = Findings(tmp_path / "kept", on_taken_up=taken_up.append)
    line = Line(points=(Point(1.0, ("a", "b")), Point(0.1, (), (3, 4))), best=None)
    calls = []

    def measure() -> Line:
        calls.append(1)
        return line

    for seed in (0, 0, 1):
        assert findings.kept("a line: long", {"seed": seed}, Line, measure) == line
    assert len(calls) == 2
    assert taken_up == ["a line: long"]
    assert len(list((tmp_path / "kept").iterdir())) == 2


def test_without_a_folder_nothing_is_kept() -> None:
    point = Point(1.0, ())
    assert Findings(None).kept("point", {}, Point, lambda: point) is point


@pytest.mark.parametrize("text", ["", "{}", '{"finding": {"share": 1}}', '{"finding": 3}'])
def test_a_broken_finding_is_named(tmp_path: Path, text: str) -> None:
    findings = Findings(tmp_path)
    findings.kept("point", {}, Point, lambda: Point(1.0, ()))
    (path,) = tmp_path.iterdir()
    path.write_text(text)
    with pytest.raises(DataError, match="delete it to measure again"):
        findings.kept("point", {}, Point, lambda: Point(1.0, ()))


@pytest.mark.parametrize(
    ("kind", "value"),
    [(int, 1.5), (int, True), (str, 3), (tuple[int, int], [1]), (tuple[int, ...], 3)],
)
def test_values_of_another_type_are_refused(kind: object, value: object) -> None:
    with pytest.raises(ValueError):
        restored(kind, value)


def test_a_comparison_that_was_stopped_goes_on(tmp_path: Path) -> None:
    candidates = [
        Candidate(name="blocks", tokenizer=grid.StartTokenizer(), num_parameters=None),
        Candidate(name="waves", tokenizer=ordered.StartTokenizer(), num_parameters=12),
    ]
    pictures = [to_picture(draw_picture((64, 64), seed=seed)) for seed in range(4)]
    seen: list[str] = []

    def run(stop_at: str | None) -> str:
        def watching(items: list[object], label: str) -> list[object]:
            if stop_at is not None and label.startswith(stop_at):
                raise KeyboardInterrupt
            seen.append(label)
            return items

        comparison, measured = compare(
            candidates,
            pictures,
            judge=None,
            code_model=None,
            progress=watching,  # type: ignore[arg-type]
            findings=Findings(tmp_path),
        )
        assert len(measured[0].decoded) == 4
        return comparison.markdown()

    with pytest.raises(KeyboardInterrupt):
        run("waves")
    with pytest.raises(KeyboardInterrupt):
        run("codecs of the nearest size")
    assert sum(label == "blocks: reconstructing" for label in seen) == 1
    assert sum(label == "waves: reconstructing" for label in seen) == 1
    text = run(None)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert run(None) == text
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == files
    # Everything that does not depend on the clock is what a run without a stop finds.
    fresh, _ = compare(candidates, pictures, judge=None, code_model=None, progress=unwatched)
    assert text.split("## Codes")[0] == fresh.markdown().split("## Codes")[0]
    assert text.split("## Wrong codes")[1] == fresh.markdown().split("## Wrong codes")[1]
