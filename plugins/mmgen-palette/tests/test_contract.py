"""The palette keeps every promise of the contract."""

from __future__ import annotations

from mmgen_palette import PaletteTokenizer

from mmgen.testing import check


def test_palette_keeps_the_contract() -> None:
    check(PaletteTokenizer.load()).require()
