"""The plugin by its own promises; the conformance kit checks the shipped weights."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from mmgen.errors import PluginError
from mmgen.testing import check, draw_picture, psnr
from mmgen.visual_tokenizer import Codes, Grid, Ordered, Picture
from mmgen_ordered import OrderedTokenizer

SMALL = {
    "levels": [5, 5, 3],
    "side": 16,
    "painter_widths": [8, 8],
    "max_length": 6,
    "default_length": 4,
    "width": 16,
    "num_heads": 2,
    "encoder_layers": 1,
    "decoder_layers": 1,
}


@pytest.fixture(scope="module")
def small() -> OrderedTokenizer:
    return OrderedTokenizer.untrained(SMALL, seed=3)


@pytest.fixture(scope="module")
def shipped() -> OrderedTokenizer:
    return OrderedTokenizer.load()


def pictures(side: int, count: int) -> list[Picture]:
    return [draw_picture((side, side), seed=seed) for seed in range(count)]


def test_a_shorter_sequence_is_the_beginning_of_a_longer_one(small: OrderedTokenizer) -> None:
    images = pictures(16, 3)
    longest = small.encode(images, length=6)
    for length in range(1, 7):
        for short, whole in zip(small.encode(images, length=length), longest, strict=True):
            assert short == Codes(whole.array[:length], Ordered(length))
    assert small.encode(images) == small.encode(images, length=4)


def test_every_prefix_is_a_picture(small: OrderedTokenizer) -> None:
    (codes,) = small.encode(pictures(16, 1), length=6)
    previews = [small.preview(Codes(codes.array[:length], codes.layout)) for length in range(7)]
    assert all(preview.shape == (16, 16, 3) for preview in previews)
    for length in range(1, 7):
        (decoded,) = small.decode([Codes(codes.array[:length], Ordered(length))])
        assert np.array_equal(decoded, previews[length])
    assert len({preview.tobytes() for preview in previews}) == 7


def test_sequences_of_one_call_may_differ_in_length(small: OrderedTokenizer) -> None:
    (whole,) = small.encode(pictures(16, 1), length=6)
    items = [Codes(whole.array[:length], Ordered(length)) for length in (5, 2, 6, 2)]
    for item, picture in zip(items, small.decode(items), strict=True):
        assert np.allclose(picture, small.decode([item])[0], atol=1e-5)


def test_quality_never_asks_for_fewer_codes_of_a_better_picture(small: OrderedTokenizer) -> None:
    images = pictures(16, 4)
    lengths = [
        [item.layout.num_positions for item in small.encode(images, quality=quality)]
        for quality in np.linspace(0, 1, 21)
    ]
    assert lengths[0] == [1] * 4 and lengths[-1] == [6] * 4
    for low, high in pairwise(lengths):
        assert all(a <= b for a, b in zip(low, high, strict=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 0}, "lengths of 1 to 6, got 0"),
        ({"length": 7}, "lengths of 1 to 6, got 7"),
        ({"quality": 1.5}, "quality must lie in 0..1"),
        ({"length": 2, "quality": 0.5}, "not both"),
        ({"captions": ["a word"]}, "reads no captions"),
    ],
)
def test_what_means_nothing_is_refused(
    small: OrderedTokenizer, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        small.encode(pictures(16, 1), **options)  # type: ignore[arg-type]


def test_other_pictures_and_codes_are_refused(small: OrderedTokenizer) -> None:
    with pytest.raises(ValueError, match="pictures of 16x16 pixels, got 32x32"):
        small.encode(pictures(32, 1))
    zeros = np.zeros((6, 1), dtype=np.int64)
    with pytest.raises(ValueError, match=r"got 75\.\.75"):
        small.decode([Codes(zeros + 75, Ordered(6))])
    with pytest.raises(ValueError, match="needs 6 positions"):
        small.decode([Codes(zeros[:2], Ordered(6))])
    with pytest.raises(ValueError, match="Ordered layouts of 1 to 6"):
        small.decode([Codes(zeros, Ordered(7))])
    with pytest.raises(ValueError, match="Ordered layouts of 1 to 6"):
        small.decode([Codes(zeros, Grid(2, 3))])
    with pytest.raises(ValueError, match="without noise"):
        small.decode([Codes(zeros, Ordered(6))], seed=1)


@pytest.mark.parametrize(
    "settings",
    [{"max_length": 2}, {"width": 15}, {"side": 20}, {"levels": [2]}, {"structure_weight": -1}],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(PluginError, match=f"{next(iter(settings))}|levels"):
        OrderedTokenizer.untrained(SMALL | settings, seed=0)


def test_saved_and_loaded_is_the_same(small: OrderedTokenizer, tmp_path: Path) -> None:
    small.save(tmp_path)
    loaded = OrderedTokenizer.load(tmp_path)
    assert loaded.fingerprint == small.fingerprint and loaded.spec == small.spec
    images = pictures(16, 2)
    codes = small.encode(images)
    assert loaded.encode(images) == codes
    alone = OrderedTokenizer.load(tmp_path, parts="decoder")
    assert np.allclose(alone.decode(codes)[0], small.decode(codes)[0], atol=1e-5)


def test_more_codes_show_more(shipped: OrderedTokenizer) -> None:
    images = pictures(64, 8)
    means = [
        np.mean([psnr(a, b) for a, b in zip(images, shipped.decode(codes), strict=True)])
        for codes in (shipped.encode(images, length=length) for length in (1, 4, 16, 64))
    ]
    assert means == sorted(means)
    assert means[-1] > means[0] + 4


def test_quality_is_reached_with_few_codes_where_little_is_shown(
    shipped: OrderedTokenizer,
) -> None:
    plain = np.full((64, 64, 3), 0.9, dtype=np.float32)
    noise = np.random.default_rng(0).random((64, 64, 3), dtype=np.float32)
    few, many = (item.layout.num_positions for item in shipped.encode([plain, noise], quality=0.6))
    assert few < many


def test_shipped_weights_conform() -> None:
    report = check(OrderedTokenizer)
    assert report.is_passed, report.to_text()
