"""The plugin by its own promises; the conformance kit checks the shipped weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mmgen.errors import PluginError
from mmgen.testing import check, draw_picture
from mmgen.visual_tokenizer import Codes, Grid, Picture, Scales
from mmgen_scales import ScalesTokenizer

SMALL = {
    "scales": [1, 2],
    "codebook_size": 16,
    "dim": 3,
    "encoder_widths": [8, 8],
    "encoder_depths": [1, 1],
    "decoder_widths": [8, 8, 8],
    "decoder_depths": [1, 1, 1],
    "max_side": 32,
    "default_side": 16,
}


@pytest.fixture(scope="module")
def small() -> ScalesTokenizer:
    return ScalesTokenizer.untrained(SMALL, seed=3)


def picture(height: int, width: int, seed: int = 0) -> Picture:
    return np.random.default_rng(seed).random((height, width, 3), dtype=np.float32)


def mean_error(one: Picture, other: Picture) -> float:
    return float(np.square(one - other).mean())


def test_layouts_are_scales_that_end_in_the_grid(small: ScalesTokenizer) -> None:
    images = [picture(16, 16), picture(8, 32, 1)]
    codes = small.encode(images)
    assert [item.layout for item in codes] == [
        Scales(((1, 1), (2, 2))),
        Scales(((1, 2), (1, 4))),
    ]
    assert [image.shape for image in small.decode(codes)] == [image.shape for image in images]
    assert small.spec.default_layout == Scales(((1, 1), (2, 2)))
    assert len(small.spec.layouts) == 16


def test_other_layouts_and_codes_are_refused(small: ScalesTokenizer) -> None:
    codes = np.zeros((5, 1), dtype=np.int64)
    with pytest.raises(ValueError, match="fixed proportions"):
        small.decode([Codes(codes[:4], Grid(2, 2))])
    with pytest.raises(ValueError, match="fixed proportions"):
        small.decode([Codes(codes, Scales(((2, 2), (1, 1))))])
    with pytest.raises(ValueError, match="needs 5 positions"):
        small.decode([Codes(codes[:4], Scales(((1, 1), (2, 2))))])
    with pytest.raises(ValueError, match=r"got 16\.\.16"):
        small.preview(Codes(codes[:1] + 16, Scales(((1, 1), (2, 2)))))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scales": [2, 1]}, "scales must rise"),
        ({"codebook_size": 1}, "codebook_size must be 2"),
        ({"prefix_share": 2.0}, "prefix_share"),
        ({"default_side": 12}, "multiples of 8"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(PluginError, match=message):
        ScalesTokenizer.untrained(settings, seed=0)


def test_saved_and_loaded_is_the_same(small: ScalesTokenizer, tmp_path: Path) -> None:
    small.save(tmp_path)
    loaded = ScalesTokenizer.load(tmp_path)
    assert loaded.fingerprint == small.fingerprint
    assert loaded.encode([picture(16, 16)]) == small.encode([picture(16, 16)])


def test_how_many_prefixes_training_saw_changes_no_fingerprint(small: ScalesTokenizer) -> None:
    other = ScalesTokenizer.untrained(SMALL | {"prefix_share": 0.5}, seed=3)
    assert other.fingerprint == small.fingerprint


def test_each_scale_brings_the_shipped_preview_nearer() -> None:
    tokenizer = ScalesTokenizer.load()
    image = draw_picture((64, 64), seed=5)
    (codes,) = tokenizer.encode([image])
    assert isinstance(codes.layout, Scales)
    ends = np.cumsum([rows * columns for rows, columns in codes.layout.sizes])
    shown = [tokenizer.preview(Codes(codes.array[:end], codes.layout)) for end in ends]
    errors = [mean_error(preview, image) for preview in shown]
    assert errors[-1] < errors[2] < errors[0]
    assert np.array_equal(shown[-1], tokenizer.decode([codes])[0])


def test_shipped_weights_conform() -> None:
    report = check(ScalesTokenizer)
    assert report.is_passed, report.to_text()
