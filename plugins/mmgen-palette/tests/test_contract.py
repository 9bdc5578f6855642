"""The palette keeps every promise of the contract."""

from __future__ import annotations

from mmgen.testing import check
from mmgen_palette import PaletteTokenizer


def test_palette_keeps_the_contract() -> None:
    report = check(PaletteTokenizer)
    assert report.is_passed, report.to_text()
