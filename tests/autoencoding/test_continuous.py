"""The autoencoder without a codebook: latents and back, and 8-bit codes of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmgen.autoencoding.continuous import ContinuousTokenizer, FineRounding
from mmgen.errors import PluginError
from mmgen.testing import check, draw_picture
from mmgen.visual_tokenizer import Grid

SETTINGS = {
    "dim": 3,
    "encoder_widths": [8, 8],
    "encoder_depths": [1, 1],
    "decoder_widths": [8, 8, 8],
    "decoder_depths": [1, 1, 1],
    "max_side": 24,
    "default_side": 16,
}


@pytest.fixture(scope="module")
def tokenizer() -> ContinuousTokenizer:
    return ContinuousTokenizer.untrained(SETTINGS, seed=0)


def test_the_contract_is_kept(tokenizer: ContinuousTokenizer) -> None:
    report = check(tokenizer, skip=("round trip",))
    assert report.is_passed, report.to_text()


def test_latents_are_bounded_numbers_of_each_picture_alone(tokenizer: ContinuousTokenizer) -> None:
    pictures = [draw_picture(size, seed=1) for size in ((16, 16), (8, 24), (16, 16))]
    latents = tokenizer.encode_latents(pictures)
    assert [item.shape for item in latents] == [(4, 3), (3, 3), (4, 3)]
    assert all(np.abs(item).max() < 1 for item in latents)
    assert np.allclose(latents[1], tokenizer.encode_latents(pictures[1:2])[0], atol=1e-6)
    drawn = tokenizer.decode_latents(latents, [Grid(2, 2), Grid(1, 3), Grid(2, 2)])
    assert [item.shape for item in drawn] == [item.shape for item in pictures]


def test_codes_are_the_latents_to_eight_bits(tokenizer: ContinuousTokenizer) -> None:
    picture = draw_picture((16, 16), seed=2)
    (latents,), (codes,) = tokenizer.encode_latents([picture]), tokenizer.encode([picture])
    assert np.abs((codes.array / 255 * 2 - 1) - latents).max() <= 1 / 255 + 1e-6


def test_training_sees_noise_and_no_steps() -> None:
    rounding = FineRounding(2, noise=0.1)
    latents = torch.linspace(-1, 1, 200).reshape(100, 2).requires_grad_()
    torch.manual_seed(0)
    vectors = rounding.train()(latents).vectors
    difference = (vectors - torch.tanh(latents)).abs()
    assert 0.05 < difference.max().item() <= 0.1
    vectors.sum().backward()
    assert latents.grad is not None and (latents.grad > 0).all()


def test_latents_that_fit_no_layout_are_refused(tokenizer: ContinuousTokenizer) -> None:
    latents = np.zeros((4, 3), dtype=np.float32)
    with pytest.raises(ValueError, match=r"Grid\(rows=1, columns=3.* needs latents \[3, 3\]"):
        tokenizer.decode_latents([latents], [Grid(1, 3)])
    with pytest.raises(ValueError, match="has no layout"):
        tokenizer.decode_latents([latents], [Grid(9, 9)])
    with pytest.raises(PluginError, match="ships no weights for 'continuous'"):
        ContinuousTokenizer.load()
