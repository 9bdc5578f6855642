"""Tiny codes of what pictures show, and the settings of a tokenizer that takes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmgen.autoencoding import (
    MeaningNetwork,
    MeaningSettings,
    NamingNetwork,
    NamingSettings,
)
from mmgen.testing import draw_picture

SMALL = {
    "levels": [5, 5, 3],
    "side": 16,
    "painter_widths": [8, 8],
    "max_length": 7,
    "default_length": 5,
    "width": 16,
    "num_heads": 2,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "num_named": 2,
    "num_names": 8,
    "num_meanings": 1,
    "tower_side": 16,
    "tower_widths": [8, 12, 16],
    "coder_width": 12,
    "reader_width": 16,
    "reader_summaries": 2,
}


@pytest.fixture(scope="session")
def meaning(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a network that names pictures and of codes of what it sees."""
    folder = tmp_path_factory.mktemp("meaning")
    torch.manual_seed(3)
    names = ["disc", "box", "star", "ring", "bar", "cross", "arrow", "heart"]
    network = NamingNetwork(NamingSettings(side=16, first_side=8, widths=(8, 12, 16)), names)
    network.train()
    # Running means and variances are those of some pictures, as after training.
    for _ in range(8):
        network(torch.rand(8, 3, 16, 16), names, 1.0)
    with torch.no_grad():
        # A fresh network gives most pictures the same names.
        network.named.weight.mul_(8)
    settings = MeaningSettings(levels=(5, 5, 3), num_codes=1, coder_width=12)
    meaning = MeaningNetwork(network.eval(), settings).eval()
    with torch.no_grad():
        # Fresh codes hardly differ from picture to picture.
        drawn = np.stack([draw_picture((16, 16), seed=seed) for seed in range(24)])
        seen = network.tower(torch.from_numpy(drawn).permute(0, 3, 1, 2))
        meaning.coder.standardise(seen.mean(dim=0), seen.std(dim=0) + 1e-4)
        meaning.coder.latents.weight.mul_(8)
    meaning.save(folder)
    return folder


@pytest.fixture(scope="session")
def small_settings(meaning: Path) -> dict[str, Any]:
    """Settings of a tiny tokenizer that is about to learn."""
    return {**SMALL, "meaning": str(meaning)}
