"""The weights that a run begins with: fresh ones, or those of a checkpoint to train further."""

from __future__ import annotations

import torch

from mmgen.checkpoint import open_checkpoint
from mmgen.errors import CheckpointError
from mmgen.model import Decoder, init_weights
from mmgen.train.config import TrainConfig
from mmgen.vocabulary import Vocabulary

__all__ = ["start_weights"]


def start_weights(decoder: Decoder, config: TrainConfig, vocabulary: Vocabulary) -> None:
    """Fill a decoder as `config.start_from` and `config.seed` say.

    Raises:
        CheckpointError: the checkpoint's vocabulary or shape is another one.
    """
    if config.start_from is None:
        init_weights(decoder, config.seed)
        return
    checkpoint = open_checkpoint(config.start_from)
    if checkpoint.vocabulary.fingerprint != vocabulary.fingerprint:
        raise CheckpointError(
            f"start_from {config.start_from} has the vocabulary "
            f"{checkpoint.vocabulary.fingerprint}, but the run's data has "
            f"{vocabulary.fingerprint}; prepare the data with the checkpoint's tokenizers"
        )
    if checkpoint.config != config.decoder:
        raise CheckpointError(
            f"start_from {config.start_from} has a decoder of another shape: {checkpoint.config}; "
            f"the run's is {config.decoder}"
        )
    weights = checkpoint.load_decoder(dtype=torch.float32).state_dict()
    decoder.load_state_dict(weights, strict=True)
