"""A tiny network that names pictures, and the settings of a tokenizer that takes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mmgen.autoencoding import NamingNetwork, NamingSettings

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
    "num_names": 8,
    "tower_side": 16,
    "tower_widths": [8, 12, 16],
}


@pytest.fixture(scope="session")
def namer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a network that names pictures, of the shape of the tokenizer's own."""
    folder = tmp_path_factory.mktemp("namer")
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
    network.eval().save(folder)
    return folder


@pytest.fixture(scope="session")
def small_settings(namer: Path) -> dict[str, Any]:
    """Settings of a tiny tokenizer that is about to learn."""
    return {**SMALL, "namer": str(namer)}
