"""A decoder with the ids of one more tokenizer says what it said before."""

from __future__ import annotations

import pytest
import torch

from mmgen.checkpoint import RowStart, extend_decoder
from mmgen.errors import VocabularyError
from mmgen.model import Decoder, DecoderConfig, init_weights
from mmgen.plugins import load_visual_tokenizer
from mmgen.visual_tokenizer import Grid
from mmgen.vocabulary import Vocabulary

STARTS: tuple[RowStart, ...] = ("hull", "vectors")
LAYOUTS = (Grid(8, 8), Grid(4, 4))


def make(*, tied: bool = True) -> tuple[Decoder, Vocabulary]:
    vocabulary = Vocabulary.build(num_text_ids=300, text_fingerprint="t").extend(
        "old", codebook_sizes=(64, 32), layouts=(Grid(2, 2), Grid(2, 1))
    )
    decoder = Decoder(
        DecoderConfig(
            vocab_size=vocabulary.size,
            hidden_size=64,
            num_layers=2,
            num_heads=1,
            num_kv_heads=1,
            intermediate_size=64,
            context_length=32,
            tie_word_embeddings=tied,
        )
    )
    init_weights(decoder, 3)
    return decoder, vocabulary


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("start", STARTS)
def test_old_ids_keep_their_rows_and_logits(start: RowStart, tied: bool) -> None:
    decoder, vocabulary = make(tied=tied)
    palette = load_visual_tokenizer("palette")
    found = extend_decoder(decoder, vocabulary, "palette", palette, LAYOUTS, start=start, seed=0)
    first = vocabulary.num_used_ids
    assert found.vocabulary.ranges[:-1] == vocabulary.ranges
    assert found.decoder.config.vocab_size == found.vocabulary.size
    assert torch.equal(found.decoder.embedding.weight[:first], decoder.embedding.weight[:first])
    ids = torch.randint(first, (2, 16), generator=torch.Generator().manual_seed(1))
    positions = torch.arange(16).expand(2, 16)
    with torch.no_grad():
        before = decoder.logits(decoder(ids, positions))[..., :first]
        after = found.decoder.logits(found.decoder(ids, positions))
    torch.testing.assert_close(after[..., :first], before)
    assert torch.equal(after.argmax(-1), before.argmax(-1))


@pytest.mark.parametrize("start", STARTS)
def test_new_rows_lie_in_the_hull_of_the_old(start: RowStart) -> None:
    decoder, vocabulary = make()
    palette = load_visual_tokenizer("palette")
    found = extend_decoder(decoder, vocabulary, "palette", palette, LAYOUTS, start=start, seed=0)
    old = decoder.embedding.weight[: vocabulary.num_used_ids].double()
    new = found.decoder.embedding.weight[vocabulary.num_used_ids :].double()
    # A point outside a hull is farther along some direction than all of the hull's corners.
    directions = torch.randn(64, 512, generator=torch.Generator().manual_seed(2)).double()
    directions = torch.cat([directions, (new - old.mean(dim=0)).T], dim=1)
    assert ((new @ directions).amax(dim=0) <= (old @ directions).amax(dim=0) + 1e-6).all()
    assert new.std(dim=0).mean() > 0.1 * old.std(dim=0).mean()


def test_rows_of_similar_codes_are_similar() -> None:
    decoder, vocabulary = make()
    palette = load_visual_tokenizer("palette")
    found = extend_decoder(
        decoder, vocabulary, "palette", palette, LAYOUTS, start="vectors", seed=0
    )
    ids = found.vocabulary.tokenizer("palette").code_ids[0]
    rows = found.decoder.embedding.weight[ids.start : ids.stop]
    colours = torch.from_numpy(palette.code_vectors(0))
    apart = torch.cdist(colours, colours)
    distances = torch.cdist(rows, rows)
    near, far = (apart > 0) & (apart < 0.21), apart > 1.0
    assert distances[near].mean() < 0.8 * distances[far].mean()


def test_the_same_seed_gives_the_same_rows() -> None:
    decoder, vocabulary = make()
    palette = load_visual_tokenizer("palette")
    weights = [
        extend_decoder(
            decoder, vocabulary, "palette", palette, LAYOUTS, start="hull", seed=seed
        ).decoder.embedding.weight
        for seed in (1, 1, 2)
    ]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_a_tokenizer_is_added_once() -> None:
    decoder, vocabulary = make()
    palette = load_visual_tokenizer("palette")
    with pytest.raises(VocabularyError, match="in the vocabulary already"):
        extend_decoder(decoder, vocabulary, "old", palette, LAYOUTS, start="hull", seed=0)


def test_a_vocabulary_of_words_only_is_extended() -> None:
    vocabulary = Vocabulary.build(num_text_ids=300, text_fingerprint="t")
    small = Decoder(
        DecoderConfig(
            vocab_size=vocabulary.size,
            hidden_size=64,
            num_layers=1,
            num_heads=1,
            num_kv_heads=1,
            intermediate_size=64,
            context_length=32,
        )
    )
    init_weights(small, 0)
    palette = load_visual_tokenizer("palette")
    for start in STARTS:
        found = extend_decoder(small, vocabulary, "palette", palette, LAYOUTS, start=start, seed=0)
        assert torch.isfinite(found.decoder.embedding.weight).all()
