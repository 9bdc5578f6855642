"""The decoder's two passes agree, and neither lets an id see what it must not."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from mmgen.errors import SettingsError
from mmgen.model import Decoder, DecoderConfig, KVCache, init_weights

SMALL = DecoderConfig(
    vocab_size=128,
    hidden_size=64,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    intermediate_size=96,
    context_length=32,
)
SHAPES = [
    SMALL,
    replace(SMALL, head_dim=128, num_heads=2, num_kv_heads=1),
    replace(SMALL, num_kv_heads=4, tie_word_embeddings=False),
]


def assert_close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-5)


def make(config: DecoderConfig) -> Decoder:
    """Return a decoder whose weights are large enough that every part shows in the output."""
    decoder = Decoder(config)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in decoder.parameters():
            offset = 1.0 if weight.ndim == 1 else 0.0
            weight.copy_(offset + 0.15 * torch.randn(weight.shape, generator=generator))
    return decoder


def random_ids(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 128, shape, generator=torch.Generator().manual_seed(seed))


def plain(decoder: Decoder, ids: torch.Tensor) -> torch.Tensor:
    positions = torch.arange(ids.shape[1]).expand_as(ids)
    with torch.no_grad():
        hidden: torch.Tensor = decoder(ids, positions)
    return hidden


def test_an_id_sees_only_what_is_before_it() -> None:
    decoder, ids = make(SMALL), random_ids(1, 12)
    changed = ids.clone()
    changed[0, 7] += 1
    before, after = plain(decoder, ids), plain(decoder, changed)
    assert_close(after[:, :7], before[:, :7])
    assert (after[:, 7:] - before[:, 7:]).abs().amax(-1).min() > 1e-3


@pytest.mark.parametrize("config", SHAPES)
def test_packed_documents_are_as_if_alone(config: DecoderConfig) -> None:
    decoder = make(config)
    documents = [random_ids(1, length, seed=length) for length in (5, 9, 2, 8, 8)]
    filler = torch.zeros(1, 16, dtype=torch.long)
    ids = torch.cat([torch.cat(documents[:3], 1), torch.cat(documents[3:], 1)])
    lengths = [[5, 9, 2], [8, 8]]
    positions = torch.stack([torch.cat([torch.arange(n) for n in row]) for row in lengths])
    document_ids = torch.stack(
        [torch.cat([torch.full((n,), i) for i, n in enumerate(row)]) for row in lengths]
    )
    assert ids.shape == positions.shape == document_ids.shape == (2, filler.shape[1])
    with torch.no_grad():
        packed = decoder(ids, positions, document_ids)
    start = 0
    for number, document in enumerate(documents):
        row, offset = (0, start) if number < 3 else (1, start - 16)
        part = packed[row, offset : offset + document.shape[1]]
        assert_close(part, plain(decoder, document)[0])
        start += document.shape[1]


def test_equal_document_ids_in_a_row_mean_plain_causal_attention() -> None:
    decoder, ids = make(SMALL), random_ids(2, 10)
    positions = torch.arange(10).expand_as(ids)
    with torch.no_grad():
        one = decoder(ids, positions, torch.zeros_like(ids))
    assert_close(one, plain(decoder, ids))


@pytest.mark.parametrize("config", SHAPES)
@pytest.mark.parametrize("rows", [slice(1, 4), torch.tensor([1, 2, 3]), torch.tensor([4, 0, 2])])
def test_cached_equals_uncached(config: DecoderConfig, rows: torch.Tensor | slice) -> None:
    decoder, ids = make(config), random_ids(3, 20)
    cache = KVCache.allocate(config, rows=5, length=24)
    lengths = torch.zeros(3, dtype=torch.long)
    parts = [decoder.step(ids[:, :9], cache, rows, lengths)]
    parts.append(decoder.step(ids[:, 9:13], cache, rows, lengths + 9))
    for position in range(13, 20):
        new = ids[:, position : position + 1]
        parts.append(decoder.step(new, cache, rows, lengths + position))
    assert_close(torch.cat(parts, 1), plain(decoder, ids))


def test_rows_at_different_positions_step_together() -> None:
    decoder, ids = make(SMALL), random_ids(3, 12)
    expected = plain(decoder, ids)
    cache = KVCache.allocate(SMALL, rows=3, length=16)
    lengths = torch.tensor([7, 2, 5])
    filled = torch.where(torch.arange(7) < lengths[:, None], ids[:, :7], 99)
    hidden = decoder.step(filled, cache, slice(0, 3), torch.zeros_like(lengths))
    for row, length in enumerate(lengths.tolist()):
        assert_close(hidden[row, :length], expected[row, :length])
    for _ in range(5):
        new = ids.gather(1, lengths[:, None])
        hidden = decoder.step(new, cache, slice(0, 3), lengths)
        wanted = expected[torch.arange(3), lengths]
        assert_close(hidden[:, 0], wanted)
        lengths = lengths + 1


def test_a_step_leaves_other_rows_alone() -> None:
    decoder = make(SMALL)
    cache = KVCache.allocate(SMALL, rows=4, length=8)
    cache.entries.fill_(5.0)
    decoder.step(random_ids(2, 3), cache, torch.tensor([3, 1]), torch.tensor([0, 4]))
    changed = (cache.entries != 5.0).flatten(3).any(-1).any(0).any(-1)
    assert changed.tolist() == [False, True, False, True]
    written = (cache.keys[:, 1] != 5.0).any(-1).any(0).any(0)
    assert written.tolist() == [False] * 4 + [True] * 3 + [False]
    assert (cache.values[:, 3, :, 3:] == 5.0).all()


def test_a_copied_row_continues_like_its_source() -> None:
    decoder, ids = make(SMALL), random_ids(1, 9)
    cache = KVCache.allocate(SMALL, rows=3, length=12)
    decoder.step(ids[:, :8], cache, slice(0, 1), torch.tensor([0]))
    cache.copy_row(0, 2, 8)
    hidden = decoder.step(ids[:, 8:], cache, slice(2, 3), torch.tensor([8]))
    assert_close(hidden[:, 0], plain(decoder, ids)[:, 8])


def test_a_step_past_the_end_of_the_cache_is_a_bug() -> None:
    decoder = make(SMALL)
    cache = KVCache.allocate(SMALL, rows=1, length=4)
    with pytest.raises(AssertionError, match="5 ids do not fit a cache of 4"):
        decoder.step(random_ids(1, 2), cache, slice(0, 1), torch.tensor([3]))


@pytest.mark.parametrize(("rows", "length"), [(0, 8), (2, 0), (2, 33)])
def test_a_cache_has_rows_and_fits_the_context(rows: int, length: int) -> None:
    with pytest.raises(SettingsError, match=f"got {rows} rows of {length}"):
        KVCache.allocate(SMALL, rows=rows, length=length)


def test_logits_of_some_positions_are_those_of_all() -> None:
    decoder, ids = make(SMALL), random_ids(2, 6)
    hidden = plain(decoder, ids)
    with torch.no_grad():
        everywhere = decoder.logits(hidden)
        some = decoder.logits(hidden[:, [1, 4]])
    assert everywhere.shape == (2, 6, 128)
    assert_close(some, everywhere[:, [1, 4]])


def test_tied_tables_are_one_tensor_and_untied_are_two() -> None:
    tied = Decoder(SMALL)
    assert tied.head.weight is tied.embedding.weight
    untied = Decoder(replace(SMALL, tie_word_embeddings=False))
    assert untied.head.weight is not untied.embedding.weight


def test_weights_are_the_same_for_the_same_seed() -> None:
    first, second, third = Decoder(SMALL), Decoder(SMALL), Decoder(SMALL)
    init_weights(first, 5)
    init_weights(second, 5)
    init_weights(third, 6)
    one, two = first.state_dict(), second.state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(first.embedding.weight, third.embedding.weight)
    assert 0.018 < float(first.embedding.weight.detach().std()) < 0.022


def test_rotary_tables_stay_exact_when_the_weights_are_converted() -> None:
    decoder = Decoder(SMALL)
    cos = decoder.cos.clone()
    decoder.to(torch.bfloat16).to(torch.float32)
    assert torch.equal(decoder.cos, cos)
    assert "cos" not in decoder.state_dict()


def test_a_half_precision_decoder_is_close_to_the_full_one() -> None:
    decoder, ids = make(SMALL), random_ids(2, 12)
    expected = plain(decoder, ids)
    half = make(SMALL).to(torch.bfloat16)
    uncached = plain(half, ids)
    assert uncached.dtype == torch.bfloat16
    cache = KVCache.allocate(SMALL, rows=2, length=12, dtype=torch.bfloat16)
    zeros = torch.zeros(2, dtype=torch.long)
    parts = [half.step(ids[:, :8], cache, slice(0, 2), zeros)]
    parts += [half.step(ids[:, t : t + 1], cache, slice(0, 2), zeros + t) for t in range(8, 12)]
    for hidden in (uncached, torch.cat(parts, 1)):
        error = (hidden.float() - expected).norm() / expected.norm()
        assert 1e-4 < error < 0.03


def test_autocast_runs_the_products_in_half_precision_and_trains() -> None:
    decoder, ids = make(SMALL), random_ids(2, 12)
    positions = torch.arange(12).expand_as(ids)
    document_ids = (torch.arange(12) // 5).expand_as(ids)
    exact = decoder(ids, positions, document_ids)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = decoder(ids, positions, document_ids)
        logits = decoder.logits(hidden)
    assert logits.dtype == torch.bfloat16
    assert (hidden - exact).norm() / exact.norm() < 0.03
    torch.autograd.backward(logits.float().logsumexp(-1).sum())
    assert all(
        weight.grad is not None and weight.grad.isfinite().all() and weight.grad.abs().max() > 0
        for weight in decoder.parameters()
    )


@pytest.mark.slow
def test_the_packed_pass_is_traced_in_one_piece_with_its_gradient() -> None:
    config = replace(SMALL, num_layers=1)
    decoder, ids = make(config), random_ids(2, 12)
    positions = torch.arange(12).expand_as(ids)
    document_ids = (torch.arange(12) // 5).expand_as(ids)
    expected = decoder(ids, positions, document_ids)
    weights = list(decoder.parameters())
    gradients = torch.autograd.grad(expected.square().sum(), weights)
    # The tracers of torch.compile without its code generator, which is slow and not ours to test.
    traced = torch.compile(decoder, fullgraph=True, backend="aot_eager")
    found = traced(ids, positions, document_ids)
    assert_close(found, expected)
    for one, other in zip(
        torch.autograd.grad(found.square().sum(), weights), gradients, strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)
