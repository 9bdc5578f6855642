"""Conversion between this decoder and the layout in which Hugging Face stores Qwen3.

The stored layout has one matrix each for query, key, value, gate and up, which are fused here.
Nothing is renamed or dropped silently: a state that does not fit is refused with what it lacks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from mmgen.errors import CheckpointError, SettingsError
from mmgen.model.config import DecoderConfig
from mmgen.model.decoder import Decoder

__all__ = ["from_hf_config", "from_hf_state", "hf_shapes", "to_hf_config", "to_hf_state"]

ARCHITECTURE = "Qwen3ForCausalLM"
DEFAULT_ROPE_THETA = 10000.0

# This decoder's name of a field, and the stored one.
_FIELDS = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "num_kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "intermediate_size": "intermediate_size",
    "context_length": "max_position_embeddings",
    "rms_norm_eps": "rms_norm_eps",
    "tie_word_embeddings": "tie_word_embeddings",
}

# What a stored configuration may say besides, and the only value that means this decoder.
_FIXED: dict[str, object] = {
    "model_type": "qwen3",
    "hidden_act": "silu",
    "attention_bias": False,
    "use_sliding_window": False,
    "rope_scaling": None,
}


def to_hf_config(config: DecoderConfig) -> dict[str, Any]:
    """Return the contents of `config.json`, but for ids and the type of the weights."""
    stored = {theirs: getattr(config, ours) for ours, theirs in _FIELDS.items()}
    return {
        "architectures": [ARCHITECTURE],
        **_FIXED,
        **stored,
        "rope_theta": config.rope_theta,
        "attention_dropout": 0.0,
    }


def from_hf_config(stored: Mapping[str, Any]) -> DecoderConfig:
    """Return the shape that a `config.json` describes.

    Raises:
        CheckpointError: it describes another network, or lacks a field.
    """
    if stored.get("model_type") != "qwen3":
        raise CheckpointError(
            f"config.json describes a model of type {stored.get('model_type')!r}, expected 'qwen3'"
        )
    for name, expected in _FIXED.items():
        if stored.get(name, expected) != expected:
            raise CheckpointError(
                f"config.json has {name} {stored[name]!r}, but this decoder has {expected!r} only"
            )
    rope = stored.get("rope_parameters") or {}
    if rope.get("rope_type", "default") != "default":
        raise CheckpointError(
            f"config.json has rope_type {rope['rope_type']!r}, but this decoder has 'default' only"
        )
    missing = sorted(theirs for theirs in _FIELDS.values() if theirs not in stored)
    if missing:
        raise CheckpointError(f"config.json lacks {', '.join(missing)}")
    theta = stored.get("rope_theta", rope.get("rope_theta", DEFAULT_ROPE_THETA))
    fields = {ours: stored[theirs] for ours, theirs in _FIELDS.items()}
    try:
        return DecoderConfig(**fields, rope_theta=theta)
    except (SettingsError, TypeError) as error:
        raise CheckpointError(f"config.json does not describe a decoder: {error}") from error


def hf_shapes(config: DecoderConfig) -> dict[str, tuple[int, ...]]:
    """Return the stored tensors of a decoder and their shapes."""
    hidden, head = config.hidden_size, config.head_dim
    query, key = config.num_heads * head, config.num_kv_heads * head
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (config.vocab_size, hidden),
        "model.norm.weight": (hidden,),
    }
    if not config.tie_word_embeddings:
        shapes["lm_head.weight"] = (config.vocab_size, hidden)
    for layer in range(config.num_layers):
        prefix = f"model.layers.{layer}."
        shapes |= {
            prefix + "input_layernorm.weight": (hidden,),
            prefix + "self_attn.q_proj.weight": (query, hidden),
            prefix + "self_attn.k_proj.weight": (key, hidden),
            prefix + "self_attn.v_proj.weight": (key, hidden),
            prefix + "self_attn.o_proj.weight": (hidden, query),
            prefix + "self_attn.q_norm.weight": (head,),
            prefix + "self_attn.k_norm.weight": (head,),
            prefix + "post_attention_layernorm.weight": (hidden,),
            prefix + "mlp.gate_proj.weight": (config.intermediate_size, hidden),
            prefix + "mlp.up_proj.weight": (config.intermediate_size, hidden),
            prefix + "mlp.down_proj.weight": (hidden, config.intermediate_size),
        }
    return shapes


def to_hf_state(decoder: Decoder) -> dict[str, torch.Tensor]:
    """Return copies of a decoder's weights under their stored names."""
    config = decoder.config
    query = config.num_heads * config.head_dim
    key = config.num_kv_heads * config.head_dim
    state = decoder.state_dict()
    stored = {
        "model.embed_tokens.weight": state["embedding.weight"],
        "model.norm.weight": state["norm.weight"],
    }
    if not config.tie_word_embeddings:
        stored["lm_head.weight"] = state["head.weight"]
    for layer in range(config.num_layers):
        ours, theirs = f"blocks.{layer}.", f"model.layers.{layer}."
        qkv = torch.split(state[ours + "attention.qkv.weight"], [query, key, key])
        gate, up = torch.chunk(state[ours + "feed_forward.gate_up.weight"], 2)
        stored |= {
            theirs + "input_layernorm.weight": state[ours + "attention_norm.weight"],
            theirs + "self_attn.q_proj.weight": qkv[0],
            theirs + "self_attn.k_proj.weight": qkv[1],
            theirs + "self_attn.v_proj.weight": qkv[2],
            theirs + "self_attn.o_proj.weight": state[ours + "attention.out.weight"],
            theirs + "self_attn.q_norm.weight": state[ours + "attention.query_norm"],
            theirs + "self_attn.k_norm.weight": state[ours + "attention.key_norm"],
            theirs + "post_attention_layernorm.weight": state[ours + "feed_forward_norm.weight"],
            theirs + "mlp.gate_proj.weight": gate,
            theirs + "mlp.up_proj.weight": up,
            theirs + "mlp.down_proj.weight": state[ours + "feed_forward.down.weight"],
        }
    return {name: tensor.detach().clone() for name, tensor in stored.items()}


def from_hf_state(config: DecoderConfig, state: Mapping[str, torch.Tensor]) -> Decoder:
    """Return a decoder with these stored weights, in their type.

    Raises:
        CheckpointError: a tensor is missing, unknown or of another shape.
    """
    shapes = hf_shapes(config)
    for problem, names in (
        ("lack", sorted(shapes.keys() - state.keys())),
        ("have unknown", sorted(state.keys() - shapes.keys())),
    ):
        if names:
            listed = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if names[4:] else "")
            raise CheckpointError(f"the weights {problem} {listed}; config.json does not fit them")
    for name, shape in shapes.items():
        if tuple(state[name].shape) != shape:
            raise CheckpointError(
                f"the weights have {name} of shape {list(state[name].shape)}, "
                f"but config.json says {list(shape)}"
            )
    ours = {
        "embedding.weight": state["model.embed_tokens.weight"],
        "norm.weight": state["model.norm.weight"],
    }
    tied = config.tie_word_embeddings
    ours["head.weight"] = state["model.embed_tokens.weight" if tied else "lm_head.weight"]
    for layer in range(config.num_layers):
        prefix, source = f"blocks.{layer}.", f"model.layers.{layer}."
        qkv = [state[f"{source}self_attn.{part}_proj.weight"] for part in "qkv"]
        gate_up = [state[f"{source}mlp.{part}_proj.weight"] for part in ("gate", "up")]
        ours |= {
            prefix + "attention_norm.weight": state[source + "input_layernorm.weight"],
            prefix + "attention.qkv.weight": torch.cat(qkv),
            prefix + "attention.out.weight": state[source + "self_attn.o_proj.weight"],
            prefix + "attention.query_norm": state[source + "self_attn.q_norm.weight"],
            prefix + "attention.key_norm": state[source + "self_attn.k_norm.weight"],
            prefix + "feed_forward_norm.weight": state[source + "post_attention_layernorm.weight"],
            prefix + "feed_forward.gate_up.weight": torch.cat(gate_up),
            prefix + "feed_forward.down.weight": state[source + "mlp.down_proj.weight"],
        }
    decoder = Decoder(config)
    stored = {tensor.data_ptr() for tensor in state.values()}
    owned = {
        name: tensor.clone() if tensor.data_ptr() in stored else tensor
        for name, tensor in ours.items()
    }
    decoder.load_state_dict(owned, strict=True, assign=True)
    decoder.tie()
    return decoder
