"""The parts of a block: norm, rotary positions, attention, feed-forward.

Query, key and value come from one matrix product, and so do gate and up: fewer and larger
products keep both a CPU and a GPU busier. Rotation and normalisation treat query and key heads
as one tensor for the same reason.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from mmgen.model.attention import AttentionPlan, attend, attend_cached
from mmgen.model.config import DecoderConfig

__all__ = ["Attention", "Block", "FeedForward", "RMSNorm", "rotary_tables", "rotate"]


class RMSNorm(nn.Module):
    """Division by the root mean square over the last axis, times a learned weight."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.shape = (size,)
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.rms_norm(x, self.shape, self.weight.to(x.dtype), self.eps)


def rotary_tables(config: DecoderConfig) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the cosine and the signed sine of every position, `[context_length, head_dim]`.

    The sine's first half is negated, so that rotating is `x * cos + halves_swapped(x) * sin`.
    """
    half = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
    frequencies = 1.0 / config.rope_theta**half
    angles = torch.arange(config.context_length, dtype=torch.float32)[:, None] * frequencies
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([cos, cos], dim=-1), torch.cat([-sin, sin], dim=-1)


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotate heads by their positions.

    Args:
        x: `[batch, length, heads, head_dim]`.
        cos: rows of the cosine table, `[batch, length, 1, head_dim]`.
        sin: rows of the signed sine table, likewise.
    """
    half = x.shape[-1] // 2
    swapped = torch.cat([x[..., half:], x[..., :half]], dim=-1)
    return torch.addcmul(x * cos, swapped, sin)


class Attention(nn.Module):
    """Grouped-query attention with a norm on each query and key head."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.num_kv_heads = config.num_kv_heads
        self.head_dim = config.head_dim
        self.eps = config.rms_norm_eps
        heads = config.num_heads + 2 * config.num_kv_heads
        self.qkv = nn.Linear(config.hidden_size, heads * config.head_dim, bias=False)
        self.out = nn.Linear(config.num_heads * config.head_dim, config.hidden_size, bias=False)
        self.query_norm = nn.Parameter(torch.ones(config.head_dim))
        self.key_norm = nn.Parameter(torch.ones(config.head_dim))

    def project(
        self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return normalised, rotated query and key, and value: `[batch, length, heads, dim]`."""
        qkv = self.qkv(x).unflatten(-1, (-1, self.head_dim))
        num_rotated = self.num_heads + self.num_kv_heads
        heads, value = qkv.split([num_rotated, self.num_kv_heads], dim=2)
        weight = torch.cat(
            [
                self.query_norm.expand(self.num_heads, -1),
                self.key_norm.expand(self.num_kv_heads, -1),
            ]
        )
        heads = functional.rms_norm(heads, (self.head_dim,), eps=self.eps) * weight.to(heads.dtype)
        rotated = rotate(heads, cos, sin)
        query, key = rotated.split([self.num_heads, self.num_kv_heads], dim=2)
        return query, key, value

    def forward(
        self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, plan: AttentionPlan
    ) -> torch.Tensor:
        query, key, value = self.project(x, cos, sin)
        mixed: torch.Tensor = self.out(attend(query, key, value, plan).flatten(2))
        return mixed


class FeedForward(nn.Module):
    """SwiGLU: `down(silu(gate(x)) * up(x))`."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.gate_up = nn.Linear(config.hidden_size, 2 * config.intermediate_size, bias=False)
        self.down = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        out: torch.Tensor = self.down(functional.silu(gate) * up)
        return out


class Block(nn.Module):
    """One layer of the decoder: attention and feed-forward, each normalised and added."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.attention = Attention(config)
        self.feed_forward_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.feed_forward = FeedForward(config)

    def forward(
        self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, plan: AttentionPlan
    ) -> torch.Tensor:
        x = x + self.attention(self.attention_norm(x), cos, sin, plan)
        out: torch.Tensor = x + self.feed_forward(self.feed_forward_norm(x))
        return out

    def step(
        self,
        x: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        slots: tuple[torch.Tensor, torch.Tensor],
        rows: torch.Tensor | slice,
        mask: torch.Tensor,
    ) -> torch.Tensor:
        """Run new ids against the cache of this layer, writing their keys and values into it.

        Args:
            x: `[batch, length, hidden_size]`.
            cos: `[batch, length, 1, head_dim]`, as `sin`.
            sin: see `cos`.
            keys: `[rows, kv_heads, length, head_dim]`, all rows of the layer's cache.
            values: like `keys`.
            slots: row and position of each new id, `[batch, 1]` and `[batch, length]`.
            rows: which rows of the cache the batch is.
            mask: as `attend_cached` wants it; its last axis says how much of the cache to read.
        """
        query, key, value = self.attention.project(self.attention_norm(x), cos, sin)
        row, position = slots
        keys[row, :, position] = key.to(keys.dtype)
        values[row, :, position] = value.to(values.dtype)
        cached = mask.shape[-1]
        mixed = attend_cached(query, keys[rows, :, :cached], values[rows, :, :cached], mask)
        x = x + self.attention.out(mixed)
        out: torch.Tensor = x + self.feed_forward(self.feed_forward_norm(x))
        return out
