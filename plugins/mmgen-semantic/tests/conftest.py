"""A tiny teacher and a tiny tokenizer that learns from it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mmgen.autoencoding import ContrastiveNetwork
from mmgen.autoencoding.contrastive import ContrastiveSettings

SMALL = {
    "levels": [5, 5],
    "codebook_size": 12,
    "meaning_dim": 4,
    "tower_widths": [8, 8, 8],
    "tower_depths": [1, 0],
    "encoder_widths": [8, 8],
    "encoder_depths": [1, 1],
    "decoder_widths": [8, 8, 8],
    "decoder_depths": [1, 1, 1],
    "max_side": 32,
    "default_side": 16,
}


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a teacher of the shape of the tokenizer's own tower."""
    torch.manual_seed(3)
    folder = tmp_path_factory.mktemp("teacher")
    settings = ContrastiveSettings(widths=(8, 8, 8), depths=(1, 0), num_words=64, word_dim=4, dim=6)
    ContrastiveNetwork(settings).save(folder)
    return folder


@pytest.fixture
def settings(teacher: Path) -> dict[str, object]:
    """Settings of a tiny tokenizer that is about to learn."""
    return {**SMALL, "teacher": str(teacher)}
