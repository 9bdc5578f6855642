"""The kit runs the checks asked for, reports them readably, and imports nothing heavy."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mmgen.errors import PluginError, SettingsError
from mmgen.testing import CHECKS, CheckResult, check, draw_picture
from mmgen.visual_tokenizer import VisualTokenizerSpec
from mmgen_palette import PaletteTokenizer


class Broken(PaletteTokenizer):
    @property
    def fingerprint(self) -> str:
        raise RuntimeError("no idea")


def test_all_checks_run_in_order() -> None:
    seen: list[CheckResult] = []
    report = check(PaletteTokenizer, skip=("speed",), on_result=seen.append)
    assert [result.name for result in report.results] == [n for n in CHECKS if n != "speed"]
    assert tuple(seen) == report.results
    assert report.is_passed, report.to_text()
    skipped = {result.name for result in report.results if result.outcome == "skipped"}
    assert skipped >= {"lengths", "seeds", "prefixes", "training", "weights"}


def test_check_names_are_distinct() -> None:
    assert len(set(CHECKS)) == len(CHECKS)


def test_failure_says_what_was_tried_found_and_how_to_mend_it() -> None:
    report = check(Broken, only=["fingerprint"])
    assert not report.is_passed
    text = report.to_text()
    assert "FAIL  fingerprint: RuntimeError: no idea (test_conformance.py:" in text
    assert "tried: read fingerprint several times" in text
    assert "remedy: return hashlib.sha256" in text
    assert "0 passed, 1 failed, 0 do not apply" in text


def test_report_is_json() -> None:
    report = check(PaletteTokenizer, only=["spec"])
    data = json.loads(json.dumps(report.to_json()))
    assert data["is_passed"] is True
    assert data["checks"][0]["name"] == "spec"
    assert data["tokenizer"] == "mmgen_palette.PaletteTokenizer"


def test_given_pictures_decide_the_round_trip() -> None:
    flat = draw_picture((32, 32), seed=0) * 0
    (result,) = check(PaletteTokenizer, pictures=[flat], only=["round trip"]).results
    assert result.found.startswith("100.00 dB")


def test_given_pictures_must_have_a_size_of_the_spec() -> None:
    with pytest.raises(SettingsError, match=r"picture of \(5, 5\) pixels"):
        check(PaletteTokenizer, pictures=[draw_picture((5, 5), seed=0)])


def test_unknown_check_is_refused() -> None:
    with pytest.raises(SettingsError, match="no check is named 'speeed'"):
        check(PaletteTokenizer, skip=["speeed"])


def test_weights_are_for_a_class() -> None:
    with pytest.raises(SettingsError, match="loaded already"):
        check(PaletteTokenizer(), weights=Path())


def test_loading_failure_is_the_plugins_own_error() -> None:
    with pytest.raises(PluginError, match="load it without a path"):
        check(PaletteTokenizer, weights=Path())


def test_spec_of_many_layouts_is_sampled() -> None:
    from mmgen.testing.subject import MAX_LAYOUTS, Subject
    from mmgen.visual_tokenizer import Grid

    class Many(PaletteTokenizer):
        @property
        def spec(self) -> VisualTokenizerSpec:
            sides = range(1, 9)
            layouts = (Grid(8, 8), *(Grid(r, c) for r in sides for c in sides if r * c < 64))
            return VisualTokenizerSpec(
                codebook_sizes=(256,), layouts=layouts, pixels=super().spec.pixels
            )

    layouts = Subject(Many(), (), Path()).layouts
    assert layouts[0] == Grid(8, 8)
    assert Grid(1, 1) in layouts
    assert 8 < len(layouts) <= MAX_LAYOUTS


def test_importing_the_kit_loads_no_torch() -> None:
    code = "import sys, mmgen.testing; print('torch' in sys.modules, 'PIL' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
