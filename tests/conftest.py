"""What every test may count on: no reach for a network or a display, and a tiny model."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["MPLBACKEND"] = "Agg"

MODEL_CARD = """\
# Tiny

## Licences

- Weights: no rights reserved (licence: CC0-1.0).
- Nothing was learned from anything.
"""


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of an untrained decoder with the palette tokenizer's 8x8 and 4x4 grids."""
    from mmgen.checkpoint import GenerationDefaults, save_checkpoint
    from mmgen.model import Decoder, DecoderConfig, init_weights
    from mmgen.plugins import load_visual_tokenizer_class
    from mmgen.text_tokenizer import train_bpe
    from mmgen.vocabulary import Vocabulary

    palette = load_visual_tokenizer_class("palette").load()
    text_tokenizer = train_bpe(["draw a red circle", "what is this?"], num_ids=260)
    vocabulary = Vocabulary.build(
        num_text_ids=text_tokenizer.num_ids, text_fingerprint=text_tokenizer.fingerprint
    ).extend(
        "palette",
        codebook_sizes=palette.spec.codebook_sizes,
        layouts=palette.spec.layouts[:2],
    )
    decoder = Decoder(
        DecoderConfig(
            vocab_size=vocabulary.size,
            hidden_size=64,
            num_layers=2,
            num_heads=2,
            num_kv_heads=1,
            intermediate_size=64,
            context_length=256,
        )
    )
    init_weights(decoder, seed=0)
    path = tmp_path_factory.mktemp("model") / "tiny"
    save_checkpoint(
        path,
        decoder=decoder,
        vocabulary=vocabulary,
        text_tokenizer=text_tokenizer,
        visual_tokenizers={"palette": (palette, None)},
        generation=GenerationDefaults(tokenizer="palette", guidance_scale=2.0),
        model_card=MODEL_CARD,
        dtype="float32",
    )
    return path
