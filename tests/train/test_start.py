"""Fresh weights, which follow the codes, and those of a checkpoint, which has to fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mmgen.checkpoint import open_checkpoint
from mmgen.errors import CheckpointError
from mmgen.model import Decoder, init_weights
from mmgen.plugins import load_visual_tokenizer
from mmgen.train.config import TokenizerSource, TrainConfig
from mmgen.train.start import NEARNESS, WIDENING, code_features, start_weights
from mmgen.train.trainer import train
from mmgen.visual_tokenizer import Grid
from mmgen.vocabulary import Vocabulary
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


def points(count: int, dim: int) -> torch.Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(7))


def test_products_fall_with_distance_as_a_gaussian_does() -> None:
    vectors, size = points(40, 3), 2**15
    features = code_features(vectors, size, seed=0)
    assert features.shape == (40, size)
    distances = torch.cdist(vectors, vectors).square()
    expected = torch.exp(-NEARNESS * distances / distances.mean())
    torch.testing.assert_close(features @ features.T / size, expected, rtol=0, atol=0.04)


def test_where_and_how_wide_vectors_are_does_not_matter() -> None:
    vectors = points(40, 3)
    features = code_features(vectors, 16, seed=0)
    for moved in (vectors + 5, vectors * 30):
        assert torch.allclose(code_features(moved, 16, seed=0), features, atol=1e-3)
    assert torch.equal(code_features(vectors, 16, seed=0), features)
    assert not torch.allclose(code_features(vectors, 16, seed=1), features, atol=0.1)


def test_codes_that_name_one_thing_are_alike() -> None:
    features = code_features(torch.ones(3, 2), 8, seed=0)
    assert features.isfinite().all() and torch.equal(features[0], features[2])


def fresh(world: World, name: str, *, is_tied: bool) -> tuple[TrainConfig, Vocabulary]:
    """Return a run from nothing on the codes of a tokenizer as it ships."""
    spec = load_visual_tokenizer(name).spec
    vocabulary = Vocabulary.build(num_text_ids=256, text_fingerprint="").extend(
        name, codebook_sizes=spec.codebook_sizes, layouts=spec.layouts[:1]
    )
    shape = replace(
        world.config.decoder,
        vocab_size=vocabulary.size,
        hidden_size=128,
        tie_word_embeddings=is_tied,
    )
    export = replace(world.config.export, visual_tokenizers=(TokenizerSource(name=name),))
    return replace(world.config, decoder=shape, export=export, seed=3), vocabulary


def likeness(rows: torch.Tensor) -> torch.Tensor:
    normed = torch.nn.functional.normalize(rows.detach(), dim=1)
    return normed @ normed.T


@pytest.mark.parametrize("is_tied", [True, False])
@pytest.mark.parametrize("name", ["palette", "fsq", "semantic"])
def test_fresh_codes_are_alike_where_what_they_name_is(
    world: World, name: str, is_tied: bool
) -> None:
    config, vocabulary = fresh(world, name, is_tied=is_tied)
    decoder = Decoder(config.decoder)
    start_weights(decoder, config, vocabulary)
    tables = (
        [decoder.embedding.weight] if is_tied else [decoder.embedding.weight, decoder.head.weight]
    )
    tokenizer = load_visual_tokenizer(name)
    for book, ids in enumerate(vocabulary.tokenizer(name).code_ids):
        vectors = torch.from_numpy(tokenizer.code_vectors(book))[:512]
        distances = torch.cdist(vectors, vectors).square()
        near = (distances < 0.05 * distances.mean()) & ~torch.eye(len(vectors), dtype=torch.bool)
        far = distances > distances.mean()
        for table in tables:
            rows = table[ids.start : ids.stop]
            assert rows.std().item() == pytest.approx(0.02 * WIDENING, rel=0.1)
            alike = likeness(rows[:512])
            # Codes that a network learned may all be far from each other.
            assert near.any() or name == "semantic"
            if near.any():
                assert alike[near].mean() > 0.6
            assert alike[far].abs().mean() < 0.2


@pytest.mark.parametrize("is_tied", [True, False])
def test_all_that_is_no_code_is_as_its_seed_says(world: World, is_tied: bool) -> None:
    config, vocabulary = fresh(world, "palette", is_tied=is_tied)
    ours, plain, again = (Decoder(config.decoder) for _ in range(3))
    start_weights(ours, config, vocabulary)
    init_weights(plain, config.seed)
    start_weights(again, config, vocabulary)
    (codes,) = vocabulary.tokenizer("palette").code_ids
    expected = dict(plain.named_parameters())
    for name, value in ours.named_parameters():
        assert torch.equal(value, again.get_parameter(name))
        if value.shape[0] == vocabulary.size:
            wide = expected[name] * WIDENING
            changed = (value != wide).any(dim=1).nonzero().flatten().tolist()
            assert changed == [*codes]
        elif name == "norm.weight":
            # Logits are as large as if neither were changed.
            assert torch.equal(value, expected[name] / WIDENING)
        else:
            assert torch.equal(value, expected[name])


def test_another_seed_gives_codes_other_vectors(world: World) -> None:
    config, vocabulary = fresh(world, "palette", is_tied=True)
    (codes,) = vocabulary.tokenizer("palette").code_ids
    found = []
    for seed in (3, 4):
        decoder = Decoder(config.decoder)
        start_weights(decoder, replace(config, seed=seed), vocabulary)
        found.append(decoder.embedding.weight[codes.start : codes.stop].detach())
    assert not torch.allclose(found[0], found[1], atol=0.01 * WIDENING)
