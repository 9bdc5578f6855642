"""The plugins by their own promises; the conformance kit checks the shipped weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mmgen.autoencoding import AbstractGridTokenizer
from mmgen.errors import PluginError
from mmgen.testing import check, draw_picture
from mmgen_lfq import BsqTokenizer, GroupedLfqTokenizer, LfqTokenizer

SMALL: dict[str, object] = {
    "encoder_widths": [8, 8],
    "encoder_depths": [1, 1],
    "decoder_widths": [8, 8, 8],
    "decoder_depths": [1, 1, 1],
    "max_side": 32,
    "default_side": 16,
    "groups": 2,
    "group_bits": 4,
}
ALL: list[type[AbstractGridTokenizer]] = [BsqTokenizer, GroupedLfqTokenizer, LfqTokenizer]


@pytest.mark.parametrize("kind", ALL)
def test_small_ones_train_save_and_load(kind: type[AbstractGridTokenizer], tmp_path: Path) -> None:
    tokenizer = kind.untrained(SMALL, seed=1)
    assert tokenizer.spec.codebook_sizes == (16, 16)
    fresh = tokenizer.fingerprint
    network = tokenizer.network().train()
    pictures = [draw_picture((16, 16), seed=seed) for seed in range(8)]
    batch = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
    output = network(batch)
    assert output.codes.shape == (8, 4, 2)
    assert set(output.losses) == {"commitment", "entropy"}
    loss = (output.reconstruction - batch).square().mean() + sum(output.losses.values())
    loss.backward()
    with torch.no_grad():
        for parameter in network.parameters():
            assert parameter.grad is not None
            parameter.sub_(parameter.grad)
    network.eval()
    assert tokenizer.fingerprint != fresh
    tokenizer.save(tmp_path)
    loaded = kind.load(tmp_path)
    assert loaded.fingerprint == tokenizer.fingerprint
    codes = tokenizer.encode(pictures)
    assert loaded.encode(pictures) == codes
    assert [image.shape for image in loaded.decode(codes)] == [(16, 16, 3)] * 8


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (LfqTokenizer, {"groups": 4, "group_bits": 9}, "22 bits at most, got 4 groups of 9"),
        (GroupedLfqTokenizer, {"group_bits": 17}, "1 to 16 bits"),
        (GroupedLfqTokenizer, {"groups": 0}, "1 or more groups"),
        (BsqTokenizer, {"entropy": -1.0}, "must not be negative"),
        (BsqTokenizer, {"max_side": 12}, "multiples of 8"),
    ],
)
def test_impossible_settings_are_named(
    kind: type[AbstractGridTokenizer], settings: dict[str, object], message: str
) -> None:
    with pytest.raises(PluginError, match=message):
        kind.untrained(settings, seed=0)


def test_how_it_was_trained_is_not_what_it_is() -> None:
    one = LfqTokenizer.untrained(SMALL | {"entropy": 0.5}, seed=1)
    assert one.fingerprint == LfqTokenizer.untrained(SMALL, seed=1).fingerprint


@pytest.mark.parametrize("kind", ALL)
def test_shipped_weights_conform(kind: type[AbstractGridTokenizer]) -> None:
    report = check(kind)
    assert report.is_passed, report.to_text()
