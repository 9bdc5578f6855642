"""The plugins by their own promises; the conformance kit checks the shipped weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mmgen.autoencoding import AbstractGridTokenizer, GridNetwork
from mmgen.errors import PluginError
from mmgen.testing import check, draw_picture
from mmgen.visual_tokenizer import Codes, Grid
from mmgen_vq import ProductVqTokenizer, ResidualVqTokenizer, VqTokenizer

SMALL: dict[str, object] = {
    "encoder_widths": [8, 8],
    "encoder_depths": [1, 1],
    "decoder_widths": [8, 8, 8],
    "decoder_depths": [1, 1, 1],
    "max_side": 32,
    "default_side": 16,
}
SETTINGS: list[tuple[type[AbstractGridTokenizer], dict[str, object], tuple[int, ...]]] = [
    (VqTokenizer, {"codebook_size": 32}, (32,)),
    (ResidualVqTokenizer, {"codebook_sizes": [16, 8]}, (16, 8)),
    (ProductVqTokenizer, {"codebook_sizes": [16, 16, 16]}, (16, 16, 16)),
]
ALL = [kind for kind, _, _ in SETTINGS]


@pytest.mark.parametrize(("kind", "settings", "sizes"), SETTINGS)
def test_small_ones_train_save_and_load(
    kind: type[AbstractGridTokenizer],
    settings: dict[str, object],
    sizes: tuple[int, ...],
    tmp_path: Path,
) -> None:
    tokenizer = kind.untrained(SMALL | settings, seed=1)
    assert tokenizer.spec.codebook_sizes == sizes
    fresh = tokenizer.fingerprint
    network = tokenizer.network().train()
    pictures = [draw_picture((16, 16), seed=seed) for seed in range(8)]
    batch = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
    output = network(batch)
    assert output.codes.shape == (8, 4, len(sizes))
    loss = (output.reconstruction - batch).square().mean() + sum(output.losses.values())
    loss.backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    network.eval()
    assert tokenizer.fingerprint != fresh, "the codebook has moved"
    tokenizer.save(tmp_path)
    loaded = kind.load(tmp_path)
    assert loaded.fingerprint == tokenizer.fingerprint
    codes = tokenizer.encode(pictures)
    assert loaded.encode(pictures) == codes
    assert [image.shape for image in loaded.decode(codes)] == [(16, 16, 3)] * 8


@pytest.mark.parametrize(("kind", "settings", "sizes"), SETTINGS)
def test_codes_beyond_their_codebook_are_refused(
    kind: type[AbstractGridTokenizer], settings: dict[str, object], sizes: tuple[int, ...]
) -> None:
    tokenizer = kind.untrained(SMALL | settings, seed=1)
    array = np.zeros((4, len(sizes)), dtype=np.int64)
    array[2, -1] = sizes[-1]
    with pytest.raises(ValueError, match=f"got 0..{sizes[-1]}"):
        tokenizer.decode([Codes(array, Grid(2, 2))])


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (VqTokenizer, {"codebook_size": 1}, "2 or more codes"),
        (VqTokenizer, {"decay": 1.0}, "decay must lie in 0..1"),
        (VqTokenizer, {"temperature": 0.0}, "temperature positive"),
        (ResidualVqTokenizer, {"codebook_sizes": []}, "2 or more codes"),
        (ResidualVqTokenizer, {"dropout": 1.0}, "dropout must lie in 0..1"),
        (ProductVqTokenizer, {"disentangling": -1.0}, "disentangling must not be negative"),
        (ProductVqTokenizer, {"max_side": 12}, "multiples of 8"),
    ],
)
def test_impossible_settings_are_named(
    kind: type[AbstractGridTokenizer], settings: dict[str, object], message: str
) -> None:
    with pytest.raises(PluginError, match=message):
        kind.untrained(settings, seed=0)


def test_how_it_was_trained_is_not_what_it_is() -> None:
    one = VqTokenizer.untrained(SMALL | {"entropy": 0.5, "decay": 0.5}, seed=1)
    assert one.fingerprint == VqTokenizer.untrained(SMALL, seed=1).fingerprint
    assert one.fingerprint != VqTokenizer.untrained(SMALL | {"dim": 4}, seed=1).fingerprint


@pytest.mark.parametrize("kind", ALL)
def test_shipped_weights_conform(kind: type[AbstractGridTokenizer]) -> None:
    report = check(kind)
    assert report.is_passed, report.to_text()


def test_shipped_residual_codes_are_coarse_to_fine() -> None:
    tokenizer = ResidualVqTokenizer.load()
    network = tokenizer.network()
    assert isinstance(network, GridNetwork) and network.encoder and network.decoder
    pictures = np.stack([draw_picture((64, 64), seed=seed) for seed in range(8)])
    batch = torch.from_numpy(pictures).permute(0, 3, 1, 2)
    errors = []
    with torch.inference_mode():
        codes = network.quantizer(network.encoder(batch).permute(0, 2, 3, 1)).codes
        for count in range(1, codes.shape[-1] + 1):
            vectors = network.quantizer.vectors(codes[..., :count])
            drawn = network.decoder(vectors.permute(0, 3, 1, 2)).clamp(0, 1)
            errors.append(float((drawn - batch).square().mean()))
    assert errors == sorted(errors, reverse=True), errors
