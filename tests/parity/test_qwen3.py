"""The decoder is Qwen3: equal logits with the weights copied either way.

The reference is `transformers`; its models here are tiny and random, and nothing is downloaded.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from mmgen.errors import CheckpointError
from mmgen.model import Decoder, DecoderConfig, KVCache
from mmgen.model.hugging_face import (
    from_hf_config,
    from_hf_state,
    hf_shapes,
    to_hf_config,
    to_hf_state,
)

SMALL = DecoderConfig(
    vocab_size=128,
    hidden_size=64,
    num_layers=3,
    num_heads=4,
    num_kv_heads=2,
    intermediate_size=96,
    context_length=64,
    rope_theta=5000.0,
    rms_norm_eps=1e-5,
)
SHAPES = {
    "grouped": SMALL,
    "head of 128": replace(SMALL, head_dim=128, num_heads=2, num_kv_heads=1),
    "all key heads": replace(SMALL, num_kv_heads=4),
    "untied": replace(SMALL, tie_word_embeddings=False),
    "untied, head of 128": replace(SMALL, tie_word_embeddings=False, head_dim=128),
}
BFLOAT16_TOLERANCE = 0.02
"""Largest relative distance of two computations in bfloat16, whose steps are 2^-8 = 0.004."""


def randomise(module: torch.nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in module.parameters():
            offset = 1.0 if weight.ndim == 1 else 0.0
            weight.copy_(offset + 0.12 * torch.randn(weight.shape, generator=generator))


def make_reference(config: DecoderConfig) -> Qwen3ForCausalLM:
    reference = Qwen3ForCausalLM(Qwen3Config(**to_hf_config(config)))
    assert not reference.config.attention_dropout
    return reference


def ours_to_theirs(config: DecoderConfig) -> tuple[Decoder, Qwen3ForCausalLM]:
    decoder = Decoder(config)
    randomise(decoder, 1)
    state = to_hf_state(decoder)
    if config.tie_word_embeddings:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    reference = make_reference(config)
    reference.load_state_dict(state, strict=True)
    return decoder, reference


def theirs_to_ours(config: DecoderConfig) -> tuple[Decoder, Qwen3ForCausalLM]:
    reference = make_reference(config)
    randomise(reference, 2)
    state = dict(reference.state_dict())
    if config.tie_word_embeddings:
        del state["lm_head.weight"]
    return from_hf_state(config, state), reference


def ids_of(config: DecoderConfig) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, config.vocab_size, (2, 40), generator=generator)


def our_logits(decoder: Decoder, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        hidden = decoder(ids, torch.arange(ids.shape[1]).expand_as(ids))
        return decoder.logits(hidden)


def their_logits(reference: Qwen3ForCausalLM, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = reference(ids).logits
    return logits


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.float() - expected.float()).norm() / expected.float().norm())


@pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("copy", [ours_to_theirs, theirs_to_ours])
def test_logits_are_equal_in_float32(config: DecoderConfig, copy: object) -> None:
    assert callable(copy)
    decoder, reference = copy(config)
    ids = ids_of(config)
    expected = their_logits(reference, ids)
    assert expected.std() > 0.1
    torch.testing.assert_close(our_logits(decoder, ids), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES)
def test_logits_are_close_in_bfloat16(config: DecoderConfig) -> None:
    decoder, reference = ours_to_theirs(config)
    ids = ids_of(config)
    exact = our_logits(decoder, ids)
    decoder.to(torch.bfloat16)
    reference.bfloat16()
    found, expected = our_logits(decoder, ids), their_logits(reference, ids)
    assert found.dtype == expected.dtype == torch.bfloat16
    assert distance(found, expected) < BFLOAT16_TOLERANCE
    assert distance(found, exact) < 1.5 * distance(expected, exact)


@pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES)
def test_cached_steps_give_the_reference_logits(config: DecoderConfig) -> None:
    decoder, reference = theirs_to_ours(config)
    ids = ids_of(config)
    cache = KVCache.allocate(config, rows=2, length=40)
    zeros = torch.zeros(2, dtype=torch.long)
    parts = [decoder.step(ids[:, :30], cache, slice(0, 2), zeros)]
    parts += [decoder.step(ids[:, t : t + 1], cache, slice(0, 2), zeros + t) for t in range(30, 40)]
    with torch.no_grad():
        found = decoder.logits(torch.cat(parts, 1).clone())
    torch.testing.assert_close(found, their_logits(reference, ids), rtol=1e-4, atol=1e-5)


def test_gradients_are_equal() -> None:
    decoder, reference = ours_to_theirs(SMALL)
    ids = ids_of(SMALL)
    torch.autograd.backward(reference(ids).logits.logsumexp(-1).sum())
    positions = torch.arange(ids.shape[1]).expand_as(ids)
    torch.autograd.backward(decoder.logits(decoder(ids, positions)).logsumexp(-1).sum())
    for ours, theirs in (
        (decoder.embedding.weight, reference.model.embed_tokens.weight),
        (decoder.norm.weight, reference.model.norm.weight),
    ):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-4)
    layer = reference.model.layers[1].self_attn
    fused = torch.cat(
        [layer.q_proj.weight.grad, layer.k_proj.weight.grad, layer.v_proj.weight.grad]
    )
    gradient = decoder.get_parameter("blocks.1.attention.qkv.weight").grad
    torch.testing.assert_close(gradient, fused, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES)
def test_states_and_configs_convert_and_come_back(config: DecoderConfig) -> None:
    decoder = Decoder(config)
    randomise(decoder, 4)
    state = to_hf_state(decoder)
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == hf_shapes(config)
    back = from_hf_state(config, state)
    assert (back.head.weight is back.embedding.weight) == config.tie_word_embeddings
    again = back.state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in decoder.state_dict().items())
    assert torch.equal(back.cos, decoder.cos)
    assert from_hf_config(to_hf_config(config)) == config
    theirs = Qwen3Config(**to_hf_config(config)).to_dict()
    assert from_hf_config(theirs) == config


def test_a_converted_decoder_shares_no_memory_with_its_source() -> None:
    state = to_hf_state(Decoder(SMALL))
    decoder = from_hf_state(SMALL, state)
    state["model.norm.weight"].fill_(7.0)
    assert decoder.norm.weight.max() == 1.0


def test_a_state_that_does_not_fit_is_refused() -> None:
    state = to_hf_state(Decoder(SMALL))
    lacking = {name: tensor for name, tensor in state.items() if "layers.2" not in name}
    with pytest.raises(CheckpointError, match=r"lack model\.layers\.2\..* and 7 more"):
        from_hf_state(SMALL, lacking)
    with pytest.raises(CheckpointError, match=r"have unknown lm_head\.weight"):
        from_hf_state(SMALL, state | {"lm_head.weight": state["model.embed_tokens.weight"]})
    wrong = state | {"model.norm.weight": torch.ones(65)}
    with pytest.raises(CheckpointError, match=r"model\.norm\.weight of shape \[65\].*\[64\]"):
        from_hf_state(SMALL, wrong)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "llama"}, "'llama', expected 'qwen3'"),
        ({"attention_bias": True}, "attention_bias True"),
        ({"rope_scaling": {"rope_type": "yarn"}}, "rope_scaling"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "rope_type 'yarn'"),
        ({"head_dim": 80}, "head_dim must be one of"),
        ({"hidden_size": "wide"}, "does not describe a decoder"),
    ],
)
def test_a_config_of_another_network_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        from_hf_config(to_hf_config(SMALL) | change)


def test_a_config_without_a_field_is_refused() -> None:
    stored = to_hf_config(SMALL)
    del stored["num_hidden_layers"]
    with pytest.raises(CheckpointError, match="lacks num_hidden_layers"):
        from_hf_config(stored)
