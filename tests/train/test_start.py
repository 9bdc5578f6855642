"""Training further from a checkpoint, and the checkpoints that do not fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mmgen.checkpoint import open_checkpoint
from mmgen.errors import CheckpointError
from mmgen.model import Decoder
from mmgen.train.start import start_weights
from mmgen.train.trainer import train
from mmgen.visual_tokenizer import Grid
from tests.train.conftest import World


def test_a_run_begins_with_the_weights_of_a_checkpoint(world: World, tmp_path: Path) -> None:
    tiny = replace(world.config, output=tmp_path / "run", num_steps=2)
    result = train(tiny)
    checkpoint = open_checkpoint(str(result.checkpoint))
    config = replace(tiny, start_from=str(result.checkpoint))
    decoder = Decoder(tiny.decoder)
    start_weights(decoder, config, checkpoint.vocabulary)
    stored = checkpoint.load_decoder(dtype=torch.float32).state_dict()
    for name, value in decoder.state_dict().items():
        assert torch.equal(value, stored[name])

    other = checkpoint.vocabulary.extend("other", codebook_sizes=(4,), layouts=tiny_layouts())
    with pytest.raises(CheckpointError, match=other.fingerprint):
        start_weights(decoder, config, other)
    wide = replace(config, decoder=replace(tiny.decoder, intermediate_size=32))
    with pytest.raises(CheckpointError, match="another shape"):
        start_weights(Decoder(wide.decoder), wide, checkpoint.vocabulary)


def tiny_layouts() -> tuple[Grid, ...]:
    return (Grid(1, 1),)
