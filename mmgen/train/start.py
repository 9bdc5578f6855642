"""The weights that a run begins with: fresh ones, or those of a checkpoint to train further.

Fresh vectors of codes are alike where what the codes name is alike, so that what is learned of one
code holds for its neighbours. That would be lost in a few steps if tables were as narrow as
matrices are: each step moves every row by about the learning rate. So tables start wide, and the
last norm small, which leaves the logits as they were.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from mmgen.checkpoint import open_checkpoint
from mmgen.errors import CheckpointError
from mmgen.model import Decoder, init_weights
from mmgen.plugins import load_visual_tokenizer
from mmgen.train.config import TrainConfig
from mmgen.vocabulary import Vocabulary

__all__ = ["code_features", "start_weights"]

WIDENING = 10.0
"""How many times wider than matrices tables are at the start."""
NEARNESS = 5.0
"""Two code vectors of a codebook, taken at random, are alike by `exp(-NEARNESS)` on average."""


def start_weights(decoder: Decoder, config: TrainConfig, vocabulary: Vocabulary) -> None:
    """Fill a decoder as `config.start_from` and `config.seed` say.

    Raises:
        CheckpointError: the checkpoint's vocabulary or shape is another one.
    """
    if config.start_from is None:
        init_weights(decoder, config.seed)
        _start_codes(decoder, config, vocabulary)
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


def _start_codes(decoder: Decoder, config: TrainConfig, vocabulary: Vocabulary) -> None:
    """Let the vectors of codes follow what their tokenizers say that the codes name."""
    tables = [decoder.embedding.weight]
    if not decoder.config.tie_word_embeddings:
        tables.append(decoder.head.weight)
    with torch.no_grad():
        decoder.norm.weight.div_(WIDENING)
        for table in tables:
            table.mul_(WIDENING)
        for source in config.export.visual_tokenizers:
            tokenizer = load_visual_tokenizer(source.name, path=source.path, parts="decoder")
            for book, ids in enumerate(vocabulary.tokenizer(source.name).code_ids):
                vectors = torch.from_numpy(tokenizer.code_vectors(book).astype(np.float32))
                for number, table in enumerate(tables):
                    seed = config.seed + book + len(vocabulary.ranges) * number
                    features = code_features(vectors, table.shape[1], seed=seed)
                    rows = slice(ids.start, ids.stop)
                    table[rows] = features * table[rows].std()


def code_features(vectors: Tensor, size: int, *, seed: int) -> Tensor:
    """Return features of mean square one whose products fall with the distance of code vectors.

    They are random Fourier features of a Gaussian kernel (Rahimi and Recht, "Random Features for
    Large-Scale Kernel Machines", 2007).

    Args:
        vectors: `[codebook_size, dim]`; what they are on average, and how wide, does not matter.
        size: features of each code.
        seed: of the features.
    """
    centred = vectors - vectors.mean(dim=0)
    # The squared distance of two at random is twice their variance in all dimensions.
    spread = 2 * centred.square().sum(dim=1).mean().clamp_min(1e-12)
    scaled = centred * (2 * NEARNESS / spread).sqrt()
    generator = torch.Generator().manual_seed(seed)
    frequencies = torch.randn(vectors.shape[1], size, generator=generator)
    phases = 2 * math.pi * torch.rand(size, generator=generator)
    return math.sqrt(2) * torch.cos(scaled @ frequencies + phases)
