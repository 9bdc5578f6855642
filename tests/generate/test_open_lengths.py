"""Tokenizers that choose lengths: the model spells how long its picture is, unless it is told."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mmgen.checkpoint import GenerationDefaults, open_checkpoint, save_checkpoint
from mmgen.generate.events import ImageFinished
from mmgen.generate.requests import DrawRequest
from mmgen.generate.session import Session, open_session
from mmgen.model import Decoder, DecoderConfig, init_weights
from mmgen.pictures import to_picture
from mmgen.testing import draw_picture
from mmgen.text_tokenizer import train_bpe
from mmgen.train.config import TokenizerSource
from mmgen.train.stages import chosen_layouts
from mmgen.visual_tokenizer import Codes, Ordered
from mmgen.vocabulary import Vocabulary
from mmgen.wrapping.merged import MergedTokenizer, merge_tokenizer
from mmgen.wrapping.wrapper import load_wrapped


@pytest.fixture(scope="module")
def merged() -> MergedTokenizer:
    wrapped = load_wrapped("palette")
    pictures = [draw_picture((64, 64), seed=seed) for seed in range(16)]
    return merge_tokenizer(wrapped, wrapped.tokenizer.encode(pictures), num_merges=40)


@pytest.fixture(scope="module")
def session(merged: MergedTokenizer, tmp_path_factory: pytest.TempPathFactory) -> Session:
    place = tmp_path_factory.mktemp("merged")
    merged.save(place)
    text_tokenizer = train_bpe(["draw a red circle", "what is this?"], num_ids=260)
    layouts = chosen_layouts(merged, TokenizerSource(name="merged", path=place))
    vocabulary = Vocabulary.build(
        num_text_ids=text_tokenizer.num_ids, text_fingerprint=text_tokenizer.fingerprint
    ).extend("merged", codebook_sizes=merged.spec.codebook_sizes, layouts=layouts)
    decoder = Decoder(
        DecoderConfig(
            vocab_size=vocabulary.size,
            hidden_size=32,
            num_layers=1,
            num_heads=2,
            num_kv_heads=1,
            intermediate_size=32,
            context_length=160,
        )
    )
    init_weights(decoder, seed=0)
    path = tmp_path_factory.mktemp("model") / "merged"
    save_checkpoint(
        path,
        decoder=decoder,
        vocabulary=vocabulary,
        text_tokenizer=text_tokenizer,
        visual_tokenizers={"merged": (merged, place)},
        generation=GenerationDefaults(tokenizer="merged", guidance_scale=2.0),
        model_card="# Merged\n",
        dtype="float32",
    )
    return open_session(path)


def drawn(session: Session, *requests: DrawRequest) -> list[ImageFinished]:
    events = [item for item in session.draw_many(requests) if isinstance(item, ImageFinished)]
    return sorted(events, key=lambda event: event.index)


def test_the_vocabulary_has_every_length(session: Session) -> None:
    ranges = session.codec.vocabulary.tokenizer("merged")
    assert len(ranges.layouts) == 64 and ranges.layouts[0] == Ordered(64)


def test_pictures_keep_the_length_that_they_need(session: Session) -> None:
    pictures = [to_picture(draw_picture((64, 64), seed=seed)) for seed in range(5)]
    encoded = session.codec.encode_images(pictures, "merged")
    assert len({item.layout for item in encoded}) > 1
    (long,) = session.codec.encode_images(pictures[:1], "merged", length=64)
    assert long.layout == Ordered(64)


def test_the_model_chooses_a_length_by_the_seed(session: Session) -> None:
    requests = [DrawRequest(prompt="a red circle", seed=seed) for seed in range(6)]
    events = drawn(session, *requests)
    assert len({event.codes.layout for event in events}) > 2
    for event in events:
        assert event.codes.is_complete and event.picture.shape == (64, 64, 3)
    (again,) = drawn(session, requests[2])
    assert again.codes == events[2].codes
    assert np.array_equal(again.picture, events[2].picture)


def test_a_length_that_is_asked_for_is_kept(session: Session) -> None:
    request = DrawRequest(prompt="a red circle", seed=0, length=9)
    (event,) = drawn(session, request)
    assert event.codes.layout == Ordered(9)
    begun = Codes(event.codes.array[:4], Ordered(4))
    (longer,) = drawn(session, replace(request, length=12, begun=begun))
    assert longer.codes.layout == Ordered(12)
    assert np.array_equal(longer.codes.array[:4], begun.array)
    (whole,) = drawn(session, replace(request, length=None, begun=begun))
    assert whole.codes.layout == Ordered(64)


def test_the_checkpoint_holds_all_of_it(session: Session, merged: MergedTokenizer) -> None:
    checkpoint = open_checkpoint(session.checkpoint.path)
    entry = checkpoint.visual_tokenizers["merged"]
    assert (entry.plugin, entry.distribution) == ("merged", "mmgen")
    assert entry.fingerprint == merged.fingerprint
