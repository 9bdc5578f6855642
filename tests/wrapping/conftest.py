"""A tiny continuous autoencoder and a tiny fsq, untrained but real, in folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmgen.autoencoding.continuous import ContinuousTokenizer
from mmgen.plugins import load_visual_tokenizer_class

SHAPE = {
    "encoder_widths": [8, 8],
    "encoder_depths": [1, 1],
    "decoder_widths": [8, 8, 8],
    "decoder_depths": [1, 1, 1],
    "max_side": 24,
    "default_side": 16,
}


@pytest.fixture(scope="session")
def continuous_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("continuous")
    ContinuousTokenizer.untrained({**SHAPE, "dim": 3}, seed=0).save(path)
    return path


@pytest.fixture(scope="session")
def fsq_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fsq")
    kind = load_visual_tokenizer_class("fsq")
    kind.untrained({**SHAPE, "levels": [5, 5, 3]}, seed=0).save(path)
    return path
