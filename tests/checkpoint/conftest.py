"""A tiny checkpoint, made of real parts."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mmgen.checkpoint import GenerationDefaults, SamplingDefaults, save_checkpoint
from mmgen.model import Decoder, DecoderConfig, init_weights
from mmgen.plugins import load_visual_tokenizer_class
from mmgen.text_tokenizer import TextTokenizer, train_bpe
from mmgen.visual_tokenizer import Grid
from mmgen.vocabulary import Vocabulary

SENTENCES = ["draw a red cat", "what is this? it is a cat.", "1234 eggs, naïve café"] * 3
GENERATION = GenerationDefaults(
    tokenizer="palette",
    text=SamplingDefaults(temperature=0.5, top_p=0.9),
    image=SamplingDefaults(top_k=64),
    guidance_scale=3.0,
    draw_template="please draw {prompt}!",
)


def make_vocabulary(text_tokenizer: TextTokenizer) -> Vocabulary:
    vocabulary = Vocabulary.build(
        num_text_ids=text_tokenizer.num_ids, text_fingerprint=text_tokenizer.fingerprint
    )
    layouts = (Grid(4, 4), Grid(8, 8))
    return vocabulary.extend("palette", codebook_sizes=(256,), layouts=layouts)


def make_decoder(vocab_size: int, *, tied: bool = True) -> Decoder:
    decoder = Decoder(
        DecoderConfig(
            vocab_size=vocab_size,
            hidden_size=32,
            num_layers=2,
            num_heads=2,
            num_kv_heads=1,
            intermediate_size=48,
            context_length=128,
            rope_theta=3000.0,
            tie_word_embeddings=tied,
        )
    )
    init_weights(decoder, 1)
    with torch.no_grad():
        for weight in decoder.parameters():
            weight.mul_(4.0 if weight.ndim == 2 else 1.0)
    return decoder


def save_tiny(path: Path, text_tokenizer: TextTokenizer, **changes: Any) -> Decoder:
    vocabulary = make_vocabulary(text_tokenizer)
    decoder = changes.pop("decoder", None) or make_decoder(vocabulary.size)
    palette = load_visual_tokenizer_class("palette").load()
    settings: dict[str, Any] = {
        "decoder": decoder,
        "vocabulary": vocabulary,
        "text_tokenizer": text_tokenizer,
        "visual_tokenizers": {"palette": (palette, None)},
        "generation": GENERATION,
        "model_card": "# A model\n",
        "dtype": "float32",
    }
    save_checkpoint(path, **(settings | changes))
    assert isinstance(decoder, Decoder)
    return decoder


@pytest.fixture(scope="session")
def text_tokenizer() -> TextTokenizer:
    return train_bpe(SENTENCES, num_ids=300)


@pytest.fixture(scope="session")
def vocabulary(text_tokenizer: TextTokenizer) -> Vocabulary:
    return make_vocabulary(text_tokenizer)


@pytest.fixture(scope="session")
def generation() -> GenerationDefaults:
    return GENERATION


@pytest.fixture
def decoder(vocabulary: Vocabulary) -> Decoder:
    return make_decoder(vocabulary.size)


@pytest.fixture
def untied_decoder(vocabulary: Vocabulary) -> Decoder:
    return make_decoder(vocabulary.size, tied=False)


@pytest.fixture
def save(text_tokenizer: TextTokenizer) -> Callable[..., Decoder]:
    def save_it(path: Path, **changes: Any) -> Decoder:
        return save_tiny(path, changes.pop("text_tokenizer", text_tokenizer), **changes)

    return save_it


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory, text_tokenizer: TextTokenizer) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny"
    save_tiny(path, text_tokenizer)
    return path


@pytest.fixture
def copied(saved: Path, tmp_path: Path) -> Path:
    """A checkpoint to spoil."""
    return Path(shutil.copytree(saved, tmp_path / "copied"))
