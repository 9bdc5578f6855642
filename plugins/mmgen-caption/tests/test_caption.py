"""The plugin by its own promises; the conformance kit checks the shipped weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmgen.errors import PluginError
from mmgen.testing import check, draw_picture
from mmgen.visual_tokenizer import Codes, Ordered, Picture
from mmgen_caption import CaptionTokenizer


@pytest.fixture(scope="module")
def small(small_settings: dict[str, Any]) -> CaptionTokenizer:
    return CaptionTokenizer.untrained(small_settings, seed=3)


def pictures(count: int) -> list[Picture]:
    return [draw_picture((16, 16), seed=seed) for seed in range(count)]


def test_both_halves_read(small: CaptionTokenizer) -> None:
    assert small.spec.captions_used == {"encode", "decode"}
    (codes,) = small.encode(pictures(1), captions=["a red disc"])
    one, other = small.decode([codes, codes], captions=["a red disc", "a blue box"])
    assert not np.array_equal(one, other)
    network = small.network()
    batch = torch.from_numpy(np.stack(pictures(2))).permute(0, 3, 1, 2)
    said, unsaid = network(batch, ["a red disc", "a blue box"]), network(batch)
    assert not torch.equal(said.reconstruction, unsaid.reconstruction)


def test_no_caption_is_an_empty_one(small: CaptionTokenizer) -> None:
    images = pictures(2)
    assert small.encode(images) == small.encode(images, captions=["", "…"])
    codes = small.encode(images)
    for one, other in zip(small.decode(codes), small.decode(codes, captions=["", ""]), strict=True):
        assert np.array_equal(one, other)


def test_a_caption_speaks_of_its_own_picture_alone(small: CaptionTokenizer) -> None:
    images = pictures(3)
    captions = ["a red disc", "a box of another colour and much more to say of it", ""]
    codes = small.encode(images, captions=captions)
    drawn = small.decode(codes, captions=captions)
    for index, image in enumerate(images):
        assert small.encode([image], captions=[captions[index]]) == [codes[index]]
        (alone,) = small.decode([codes[index]], captions=[captions[index]])
        assert np.allclose(alone, drawn[index], atol=1e-5)


def test_a_caption_for_each_is_needed(small: CaptionTokenizer) -> None:
    with pytest.raises(ValueError, match="one caption for each of 2 items, got 1"):
        small.encode(pictures(2), captions=["a word"])
    codes = Codes(np.zeros((4, 1), dtype=np.int64), Ordered(4))
    with pytest.raises(ValueError, match="one caption for each of 1 items, got 2"):
        small.decode([codes], captions=["a word", "another"])


def test_a_preview_is_of_the_caption(small: CaptionTokenizer) -> None:
    (codes,) = small.encode(pictures(1), captions=["a red disc"])
    begun = Codes(codes.array[:2], codes.layout)
    (decoded,) = small.decode([Codes(begun.array, Ordered(2))], captions=["a red disc"])
    assert np.array_equal(small.preview(begun, caption="a red disc"), decoded)
    nothing = Codes(codes.array[:0], codes.layout)
    of_words = small.preview(nothing, caption="a red disc")
    assert not np.array_equal(of_words, small.preview(nothing))


def test_saved_and_loaded_is_the_same(small: CaptionTokenizer, tmp_path: Path) -> None:
    small.save(tmp_path)
    loaded = CaptionTokenizer.load(tmp_path)
    assert loaded.fingerprint == small.fingerprint and loaded.spec == small.spec
    encoder = CaptionTokenizer.load(tmp_path, parts="encoder")
    decoder = CaptionTokenizer.load(tmp_path, parts="decoder")
    codes = small.encode(pictures(1), captions=["a red disc"])
    assert encoder.encode(pictures(1), captions=["a red disc"]) == codes
    drawn = decoder.decode(codes, captions=["a red disc"])
    assert np.allclose(drawn[0], small.decode(codes, captions=["a red disc"])[0], atol=1e-5)


@pytest.mark.parametrize("name", ["reader_layers", "reader_buckets", "forecast_buckets"])
def test_a_reader_of_nothing_is_refused(name: str, small_settings: dict[str, Any]) -> None:
    with pytest.raises(PluginError, match=f"{name} must be 1 or more"):
        CaptionTokenizer.untrained(small_settings | {name: 0}, seed=0)


def test_shipped_weights_conform() -> None:
    report = check(CaptionTokenizer)
    assert report.is_passed, report.to_text()
