"""The plugin by its own promises: any prefix decodes, and the first codes say what is shown."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from einops import rearrange

from mmgen.autoencoding import MeaningNetwork
from mmgen.errors import PluginError
from mmgen.testing import check, draw_picture
from mmgen.visual_tokenizer import Codes, Ordered, Picture
from mmgen_holistic import HolisticTokenizer


@pytest.fixture(scope="module")
def small(small_settings: dict[str, Any]) -> HolisticTokenizer:
    tokenizer = HolisticTokenizer.untrained(small_settings, seed=3)
    tokenizer.begin_training(as_batch(pictures(24)))
    return tokenizer


def pictures(count: int) -> list[Picture]:
    return [draw_picture((16, 16), seed=seed) for seed in range(count)]


def as_batch(images: list[Picture]) -> torch.Tensor:
    return rearrange(torch.from_numpy(np.stack(images)), "b h w c -> b c h w")


def test_the_first_codes_are_the_likeliest_names(small: HolisticTokenizer, meaning: Path) -> None:
    images = pictures(8)
    namer = MeaningNetwork.load(meaning).namer
    with torch.no_grad():
        logits = namer.named(namer.tower(as_batch(images)))
    wanted = 75 + logits.argsort(dim=1, descending=True)[:, :2].numpy()
    assert len(np.unique(wanted[:, 0])) > 1, "these names tell nothing apart"
    for length in (1, 2, 3, 7):
        codes = small.encode(images, length=length)
        found = np.stack([item.array[:2, 0] for item in codes])
        assert np.array_equal(found, wanted[:, :length])


def test_the_next_codes_are_those_of_meaning(small: HolisticTokenizer, meaning: Path) -> None:
    images = pictures(8)
    network = MeaningNetwork.load(meaning)
    with torch.no_grad():
        latents = network.coder(network.namer.tower(as_batch(images)))
    wanted = network.quantizer(latents).codes[..., 0].numpy()
    assert len(np.unique(wanted)) > 1, "these codes tell nothing apart"
    found = np.stack([item.array[2:3, 0] for item in small.encode(images, length=7)])
    assert np.array_equal(found, wanted)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tower_side": 24}, "tower_side is 16, not 24; set these"),
        ({"tower_widths": [8, 16]}, r"tower_widths is \(8, 12, 16\), not \(8, 16\); set"),
        ({"num_names": 9}, "num_names is 8, not 9; set"),
        ({"levels": [5, 5, 5]}, r"levels is \(5, 5, 3\), not \(5, 5, 5\); set"),
        ({"num_meanings": 2}, "num_meanings is 1, not 2; set"),
        ({"coder_width": 8}, "coder_width is 12, not 8; set"),
        (
            {"tower_side": 24, "num_names": 7},
            "tower_side is 16, not 24, num_names is 8, not 7; set",
        ),
    ],
)
def test_a_network_of_another_shape_is_refused(
    small_settings: dict[str, Any], change: dict[str, object], message: str
) -> None:
    with pytest.raises(PluginError, match=f"does not fit the settings: {message}"):
        HolisticTokenizer.untrained({**small_settings, **change}, seed=0)


def test_codes_of_meaning_have_to_be_given_and_to_be_there(
    small_settings: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(PluginError, match=r"set settings\.meaning to the folder"):
        HolisticTokenizer.untrained({**small_settings, "meaning": ""}, seed=0)
    with pytest.raises(PluginError, match=r"meaning_config\.json is missing"):
        HolisticTokenizer.untrained({**small_settings, "meaning": str(tmp_path)}, seed=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_named": 0}, "num_named is 1 to num_names, got 0 and 8"),
        ({"num_names": 1}, "num_named is 1 to num_names, got 2 and 1"),
        ({"num_meanings": 5}, r"more than num_named \+ num_meanings, got 7 and 7"),
        ({"num_meanings": 0}, "must be positive"),
        ({"coder_width": 0}, "must be positive"),
        ({"reader_width": 0}, "reader_width must be 1 or more, got 0"),
        ({"reader_summaries": 0}, "reader_summaries must be 1 or more, got 0"),
        ({"default_length": 8}, r"default_length must lie in 1\.\.max_length"),
        ({"tower_side": 0}, "must be positive"),
        ({"tower_widths": [8, 0]}, "must be positive"),
        ({"tower_widths": [8]}, "two widths or more"),
        ({"levels": [2, 5]}, "levels need 3"),
        ({"depth": 3}, "'depth'"),
    ],
)
def test_settings_that_mean_nothing_are_refused(
    small_settings: dict[str, Any], change: dict[str, object], message: str
) -> None:
    with pytest.raises(PluginError, match=message):
        HolisticTokenizer.untrained({**small_settings, **change}, seed=0)


def test_a_shorter_sequence_is_the_beginning_of_a_longer_one(small: HolisticTokenizer) -> None:
    images = pictures(3)
    longest = small.encode(images, length=7)
    for length in range(1, 8):
        for short, whole in zip(small.encode(images, length=length), longest, strict=True):
            assert short == Codes(whole.array[:length], Ordered(length))
    assert small.encode(images) == small.encode(images, length=5)


def test_every_prefix_is_a_picture(small: HolisticTokenizer) -> None:
    (codes,) = small.encode(pictures(1), length=7)
    previews = [small.preview(Codes(codes.array[:length], codes.layout)) for length in range(8)]
    assert all(preview.shape == (16, 16, 3) for preview in previews)
    assert all(0 <= preview.min() <= preview.max() <= 1 for preview in previews)
    for length in range(1, 8):
        (decoded,) = small.decode([Codes(codes.array[:length], Ordered(length))])
        assert np.array_equal(decoded, previews[length])
    assert len({preview.tobytes() for preview in previews}) == 8


def test_what_is_shown_is_seen_by_the_decoder(small: HolisticTokenizer) -> None:
    (codes,) = small.encode(pictures(1), length=7)
    # Another name, then another code of levels.
    for position, (start, count) in enumerate(((75, 8), (75, 8), (0, 75))):
        array = codes.array.copy()
        array[position] = start + (array[position] - start + 1) % count
        one, other = small.decode([codes, Codes(array, codes.layout)])
        assert not np.array_equal(one, other)


def test_a_picture_has_nothing_to_do_with_the_others_of_its_call(
    small: HolisticTokenizer,
) -> None:
    images = pictures(5)
    codes = small.encode(images, length=7)
    for image, item in zip(images, codes, strict=True):
        assert small.encode([image], length=7) == [item]
    items = [
        Codes(item.array[:length], Ordered(length))
        for item, length in zip(codes, (5, 1, 7, 2, 5), strict=True)
    ]
    for item, picture in zip(items, small.decode(items), strict=True):
        assert np.allclose(picture, small.decode([item])[0], atol=1e-5)


def test_quality_never_asks_for_fewer_codes_of_a_better_picture(
    small: HolisticTokenizer,
) -> None:
    images = pictures(4)
    lengths = [
        [item.layout.num_positions for item in small.encode(images, quality=quality)]
        for quality in np.linspace(0, 1, 21)
    ]
    assert lengths[0] == [1] * 4 and lengths[-1] == [7] * 4
    for low, high in pairwise(lengths):
        assert all(a <= b for a, b in zip(low, high, strict=True))


def test_saved_and_loaded_is_the_same(small: HolisticTokenizer, tmp_path: Path) -> None:
    small.save(tmp_path)
    # Where the codes came from is of no use to others.
    assert '"meaning": ""' in (tmp_path / "tokenizer_config.json").read_text(encoding="utf-8")
    loaded = HolisticTokenizer.load(tmp_path)
    assert loaded.fingerprint == small.fingerprint and loaded.spec == small.spec
    images = pictures(2)
    codes = small.encode(images)
    assert loaded.encode(images) == codes
    assert np.allclose(loaded.decode(codes)[0], small.decode(codes)[0], atol=1e-5)


def test_each_half_does_its_part_alone(small: HolisticTokenizer, tmp_path: Path) -> None:
    small.save(tmp_path)
    encoder = HolisticTokenizer.load(tmp_path, parts="encoder")
    decoder = HolisticTokenizer.load(tmp_path, parts="decoder")
    images = pictures(2)
    codes = small.encode(images)
    assert encoder.encode(images) == codes
    assert np.allclose(decoder.decode(codes)[1], small.decode(codes)[1], atol=1e-5)
    assert np.array_equal(decoder.code_vectors(0), small.code_vectors(0))
    with pytest.raises(PluginError, match="without its encoder"):
        decoder.encode(images)
    with pytest.raises(PluginError, match="without its decoder"):
        encoder.decode(codes)


def test_the_small_one_conforms(small: HolisticTokenizer, tmp_path: Path) -> None:
    small.save(tmp_path)
    report = check(HolisticTokenizer, weights=tmp_path)
    assert report.is_passed, report.to_text()


def test_shipped_weights_conform() -> None:
    report = check(HolisticTokenizer)
    assert report.is_passed, report.to_text()
