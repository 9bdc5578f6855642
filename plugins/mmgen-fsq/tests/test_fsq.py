"""The plugin by its own promises; the conformance kit checks the shipped weights."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from mmgen.errors import PluginError
from mmgen.testing import check
from mmgen.visual_tokenizer import Codes, Grid, Picture
from mmgen_fsq import FsqTokenizer

SMALL = {
    "levels": [5, 5, 3],
    "encoder_widths": [8, 8],
    "encoder_depths": [1, 1],
    "decoder_widths": [8, 8, 8],
    "decoder_depths": [1, 1, 1],
    "max_side": 32,
    "default_side": 16,
}


@pytest.fixture(scope="module")
def small() -> FsqTokenizer:
    return FsqTokenizer.untrained(SMALL, seed=3)


def picture(height: int, width: int, seed: int = 0) -> Picture:
    return np.random.default_rng(seed).random((height, width, 3), dtype=np.float32)


def test_sizes_in_one_call_may_differ(small: FsqTokenizer) -> None:
    images = [picture(16, 16), picture(8, 32, 1), picture(16, 16, 2)]
    codes = small.encode(images)
    assert [item.layout for item in codes] == [Grid(2, 2), Grid(1, 4), Grid(2, 2)]
    assert [image.shape for image in small.decode(codes)] == [image.shape for image in images]
    assert codes[2] == small.encode([images[2]])[0]


def test_default_layout_is_the_default_side(small: FsqTokenizer) -> None:
    assert small.spec.default_layout == Grid(2, 2)
    assert small.spec.sizes[0] == (16, 16)
    assert (32, 8) in small.spec.sizes and len(small.spec.sizes) == 16


def test_network_trains_the_tokenizer_itself(small: FsqTokenizer) -> None:
    tokenizer = FsqTokenizer.untrained(SMALL, seed=3)
    assert tokenizer.fingerprint == small.fingerprint
    network = tokenizer.network()
    output = network(torch.from_numpy(picture(16, 16)).permute(2, 0, 1)[None])
    output.reconstruction.square().mean().backward()
    with torch.no_grad():
        for parameter in network.parameters():
            assert parameter.grad is not None
            parameter.sub_(parameter.grad)
    assert tokenizer.fingerprint != small.fingerprint


def test_saved_and_loaded_is_the_same(small: FsqTokenizer, tmp_path: Path) -> None:
    small.save(tmp_path)
    loaded = FsqTokenizer.load(tmp_path)
    assert loaded.fingerprint == small.fingerprint
    assert loaded.spec == small.spec
    image = picture(16, 16)
    assert loaded.encode([image]) == small.encode([image])


def test_halves_load_alone(small: FsqTokenizer, tmp_path: Path) -> None:
    small.save(tmp_path)
    image = picture(16, 16)
    codes = FsqTokenizer.load(tmp_path, parts="encoder").encode([image])
    drawn = FsqTokenizer.load(tmp_path, parts="decoder").decode(codes)
    assert np.allclose(drawn[0], small.decode(codes)[0])
    with pytest.raises(PluginError, match="without its decoder"):
        FsqTokenizer.load(tmp_path, parts="encoder").decode(codes)
    with pytest.raises(PluginError, match="without its encoder"):
        FsqTokenizer.load(tmp_path, parts="decoder").encode([image])
    with pytest.raises(PluginError, match="both of its halves"):
        FsqTokenizer.load(tmp_path, parts="encoder").save(tmp_path)


@pytest.mark.parametrize("side", [4, 12, 40])
def test_other_sizes_are_refused(small: FsqTokenizer, side: int) -> None:
    with pytest.raises(ValueError, match=f"got 16x{side}"):
        small.encode([picture(side, 16)])


def test_wrong_codes_are_refused(small: FsqTokenizer) -> None:
    zeros = np.zeros((4, 1), dtype=np.int64)
    with pytest.raises(ValueError, match=r"got 75\.\.75"):
        small.decode([Codes(zeros + 75, Grid(2, 2))])
    with pytest.raises(ValueError, match="needs 4 positions"):
        small.decode([Codes(zeros[:3], Grid(2, 2))])
    with pytest.raises(ValueError, match="at most 4 rows"):
        small.decode([Codes(np.zeros((10, 1), dtype=np.int64), Grid(5, 2))])


def test_missing_files_and_unknown_settings_are_named(small: FsqTokenizer, tmp_path: Path) -> None:
    with pytest.raises(PluginError, match=r"tokenizer_config\.json is missing"):
        FsqTokenizer.load(tmp_path)
    with pytest.raises(PluginError, match="'depth'"):
        FsqTokenizer.untrained({"depth": 3}, seed=0)
    small.save(tmp_path)
    shutil.rmtree(tmp_path)
    assert not tmp_path.exists()


def test_shipped_weights_conform() -> None:
    report = check(FsqTokenizer)
    assert report.is_passed, report.to_text()
