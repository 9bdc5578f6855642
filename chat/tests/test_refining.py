"""A sketch of few tokens first, then the same picture with more: a tokenizer of several lengths."""

from __future__ import annotations

import asyncio
import importlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mmgen.checkpoint import GenerationDefaults, save_checkpoint
from mmgen.model import Decoder, DecoderConfig, init_weights
from mmgen.plugins import load_visual_tokenizer_class
from mmgen.text_tokenizer import train_bpe
from mmgen.visual_tokenizer import Ordered
from mmgen.vocabulary import Vocabulary
from mmgen_chat.answer import Answer
from mmgen_chat.backend import DrawRequest, ImageProgress, TurnFailed, TurnSettings
from mmgen_chat.conversation import Picture, Turn
from mmgen_chat.embedded import EmbeddedBackend

PROMPT = "a red fox"


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model with random weights and an ordered tokenizer, installed for one test."""
    metadata = tmp_path / "mmgen_waves-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: mmgen-waves\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[mmgen.visual_tokenizers]\n"
        "waves = mmgen.authoring.starting_points.ordered:StartTokenizer\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    waves = load_visual_tokenizer_class("waves").load()
    text_tokenizer = train_bpe(["draw a red fox"], num_ids=270)
    vocabulary = Vocabulary.build(
        num_text_ids=text_tokenizer.num_ids, text_fingerprint=text_tokenizer.fingerprint
    ).extend(
        "waves",
        codebook_sizes=waves.spec.codebook_sizes,
        layouts=(Ordered(16), Ordered(8), Ordered(4)),
    )
    decoder = Decoder(
        DecoderConfig(
            vocab_size=vocabulary.size,
            hidden_size=64,
            num_layers=1,
            num_heads=1,
            num_kv_heads=1,
            intermediate_size=64,
            context_length=64,
        )
    )
    init_weights(decoder, seed=0)
    save_checkpoint(
        tmp_path / "model",
        decoder=decoder,
        vocabulary=vocabulary,
        text_tokenizer=text_tokenizer,
        visual_tokenizers={"waves": (waves, None)},
        generation=GenerationDefaults(tokenizer="waves", guidance_scale=2.0),
        model_card="A model with random weights.",
        dtype="float32",
    )
    return tmp_path / "model"


def test_a_sketch_is_refined(model: Path) -> None:
    async def draw() -> tuple[Picture, Picture, list[object], list[object]]:
        async with EmbeddedBackend(model) as backend:
            info = await backend.open()
            assert "extend" in info.abilities
            assert info.tokenizers[0].lengths == (4, 8, 16)
            settings = TurnSettings(seed=2, length=4)
            sketch, _ = await answered(backend, DrawRequest(prompt=PROMPT, settings=settings))
            more = DrawRequest(
                prompt=PROMPT, settings=replace(settings, length=16), extends=sketch.pictures[0]
            )
            refined, events = await answered(backend, more)
            again = replace(more, extends=replace(sketch.pictures[0], fingerprint="0" * 64))
            _, refused = await answered(backend, again)
            return sketch.pictures[0], refined.pictures[0], events, refused

    sketch, refined, events, refused = asyncio.run(asyncio.wait_for(draw(), 100))
    assert sketch.codes is not None and refined.codes is not None
    assert len(sketch.codes.array) == 4 and len(refined.codes.array) == 16
    assert np.array_equal(refined.codes.array[:4], sketch.codes.array)
    assert refined.drawing is not None and refined.drawing.num_codes == 16
    counts = [event.num_done or 0 for event in events if isinstance(event, ImageProgress)]
    assert min(counts) > 4 and counts[-1] == 16
    [failed] = refused
    assert isinstance(failed, TurnFailed) and "open the model that drew it" in str(failed.error)


async def answered(backend: EmbeddedBackend, request: DrawRequest) -> tuple[Turn, list[object]]:
    answer = Answer(Turn(role="assistant"))
    events: list[object] = []
    async for event in backend.events(request):
        answer.take(event)
        events.append(event)
    return answer.turn, events
