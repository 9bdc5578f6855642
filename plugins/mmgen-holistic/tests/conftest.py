"""Tiny codes of meaning, and the settings of a tokenizer that begins with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mmgen.autoencoding import MeaningNetwork, MeaningSettings, NamingNetwork, NamingSettings

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
    "num_meanings": 3,
    "tower_side": 16,
    "tower_widths": [8, 12, 16],
    "coder_width": 12,
    "reader_width": 24,
    "reader_summaries": 2,
}


@pytest.fixture(scope="session")
def meaning(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of codes of meaning of the shape of the tokenizer's own."""
    folder = tmp_path_factory.mktemp("meaning")
    torch.manual_seed(3)
    names = ["disc", "box", "star"]
    namer = NamingNetwork(NamingSettings(side=16, first_side=8, widths=(8, 12, 16)), names)
    namer.train()
    # Running means and variances are those of some pictures, as after training.
    for _ in range(8):
        namer(torch.rand(6, 3, 16, 16), names * 2, 1.0)
    coding = MeaningSettings(levels=(5, 5, 3), num_codes=3, coder_width=12)
    network = MeaningNetwork(namer.eval(), coding)
    with torch.no_grad():
        # Fresh latents hardly tell two pictures apart.
        network.coder.latents.weight.mul_(8)
    network.save(folder)
    return folder


@pytest.fixture(scope="session")
def small_settings(meaning: Path) -> dict[str, Any]:
    """Settings of a tiny tokenizer that is about to learn."""
    return {**SMALL, "meaning": str(meaning)}
