from __future__ import annotations

import importlib
import os
import warnings
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from mmgen.checkpoint import Checkpoint, open_checkpoint, save_checkpoint
from mmgen.generate.session import Session
from mmgen.generate.torch_engine import TorchEngine

os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
# So small a model is fastest with one thread, above all where others need the processors too.
torch.set_num_threads(1)
if find_spec("vllm") is not None:
    with warnings.catch_warnings():
        # Of packages that vLLM is made of; ours remain errors in the tests.
        warnings.simplefilter("ignore")
        importlib.import_module("mmgen.generate.vllm_engine")


@pytest.fixture(scope="session")
def checkpoint(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """The tiny checkpoint with larger weights, so that ids depend on their context."""
    fresh = open_checkpoint(tiny_checkpoint)
    decoder = fresh.load_decoder()
    with torch.no_grad():
        for parameter in decoder.parameters():
            if parameter.ndim > 1:
                parameter.mul_(8)
    path = tmp_path_factory.mktemp("larger") / "tiny"
    save_checkpoint(
        path,
        decoder=decoder,
        vocabulary=fresh.vocabulary,
        text_tokenizer=fresh.text_tokenizer,
        visual_tokenizers={"palette": (fresh.load_visual_tokenizer("palette"), None)},
        generation=fresh.generation,
        model_card="A model with random weights.",
        dtype="float32",
    )
    return open_checkpoint(path)


@pytest.fixture(scope="session")
def session(checkpoint: Checkpoint) -> Session:
    """A session on the torch engine."""
    return Session(checkpoint, TorchEngine(checkpoint.load_decoder()))
