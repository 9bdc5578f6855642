"""The plugin by its own promises; the conformance kit checks the shipped weights."""

from __future__ import annotations

import numpy as np
import pytest

from mmgen.errors import PluginError
from mmgen.testing import check
from mmgen.visual_tokenizer import Grid, Picture
from mmgen_semantic import SemanticTokenizer


def picture(height: int, width: int, seed: int = 0) -> Picture:
    return np.random.default_rng(seed).random((height, width, 3), dtype=np.float32)


def test_each_place_has_two_codes(settings: dict[str, object]) -> None:
    small = SemanticTokenizer.untrained(settings, seed=3)
    images = [picture(16, 16), picture(8, 32, 1)]
    codes = small.encode(images)
    assert [item.layout for item in codes] == [Grid(2, 2), Grid(1, 4)]
    assert [item.array.shape for item in codes] == [(4, 2), (4, 2)]
    assert small.spec.codebook_sizes == (12, 25)
    assert [image.shape for image in small.decode(codes)] == [image.shape for image in images]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"levels": [2]}, "levels need 3"),
        ({"codebook_size": 1}, "codebook_size and meaning_dim"),
        ({"tower_widths": [0, 8, 8]}, "tower_widths"),
        ({"depth": 3}, "'depth'"),
    ],
)
def test_settings_that_mean_nothing_are_refused(
    settings: dict[str, object], change: dict[str, object], message: str
) -> None:
    with pytest.raises(PluginError, match=message):
        SemanticTokenizer.untrained({**settings, **change}, seed=0)


def test_shipped_weights_conform() -> None:
    report = check(SemanticTokenizer)
    assert report.is_passed, report.to_text()
