from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mmgen.checkpoint import GenerationDefaults, SamplingDefaults, save_checkpoint
from mmgen.generate.session import Session, open_session
from mmgen.model import Decoder, DecoderConfig, init_weights
from mmgen.plugins import load_visual_tokenizer_class
from mmgen.text_tokenizer import train_bpe
from mmgen.visual_tokenizer import Grid
from mmgen.vocabulary import Vocabulary

CONTEXT_LENGTH = 128


def save_tiny_model(path: Path, *, seed: int = 0) -> Path:
    """Save a checkpoint with random weights that draws 4x4 and 8x8 codes of the palette."""
    text_tokenizer = train_bpe(["draw a red fox", "what is this? a fox"], num_ids=280)
    palette = load_visual_tokenizer_class("palette").load()
    vocabulary = Vocabulary.build(
        num_text_ids=text_tokenizer.num_ids, text_fingerprint=text_tokenizer.fingerprint
    ).extend(
        "palette",
        codebook_sizes=palette.spec.codebook_sizes,
        layouts=(Grid(4, 4), Grid(8, 8)),
    )
    decoder = Decoder(
        DecoderConfig(
            vocab_size=vocabulary.size,
            hidden_size=64,
            num_layers=2,
            num_heads=2,
            num_kv_heads=1,
            intermediate_size=96,
            context_length=CONTEXT_LENGTH,
        )
    )
    init_weights(decoder, seed)
    with torch.no_grad():
        # Larger weights than a fresh model's, so that ids depend on their context.
        for parameter in decoder.parameters():
            if parameter.ndim > 1:
                parameter.mul_(8)
    save_checkpoint(
        path,
        decoder=decoder,
        vocabulary=vocabulary,
        text_tokenizer=text_tokenizer,
        visual_tokenizers={"palette": (palette, None)},
        generation=GenerationDefaults(
            tokenizer="palette",
            text=SamplingDefaults(temperature=0.5),
            image=SamplingDefaults(top_k=100),
            guidance_scale=2.0,
        ),
        model_card="A model with random weights.",
    )
    return path


@pytest.fixture(scope="session")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def session(model_path: Path) -> Session:
    return open_session(model_path)
