"""The parts of a block: norm, rotary positions, attention, feed-forward.

Query, key and value come from one matrix product, and so do gate and up: fewer and larger
products keep both a CPU and a GPU busier. Rotation and normalisation treat query and key heads
as one tensor for the same reason.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import nn
from torch.nn import functional

from mmgen.model.attention import AttentionPlan, attend, attend_cached
from mmgen.model.config import DecoderConfig

__all__ = [
    "Attention",
    "Block",
    "Embedding",
    "FeedForward",
    "Linear",
    "Past",
    "RMSNorm",
    "normalise",
    "product",
    "rotary_tables",
    "rotate",
]


class Linear(nn.Module):
    """A matrix product without bias; zero until it is given weights, which costs no start-up."""

    def __init__(self, in_size: int, out_size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(out_size, in_size))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.linear(x, self.weight)


class Embedding(nn.Module):
    """One vector for each id; zero like `Linear` until it is given weights."""

    def __init__(self, num_ids: int, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(num_ids, size))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return functional.embedding(ids, self.weight)


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


def normalise(x: torch.Tensor, weight: torch.Tensor, eps: torch.Tensor) -> torch.Tensor:
    """Return the RMS norm of few vectors, without gradients.

    torch has no fused kernel for this on a CPU, and its sequence of small operations costs more
    than the arithmetic; a dot product of each vector with itself needs half as many.

    Args:
        eps: one number, `[1, 1, 1]`, in float32.
    """
    size = x.shape[-1]
    if x.dtype is not torch.float32 or x.device.type != "cpu":
        return functional.rms_norm(x, (size,), eps=float(eps)) * weight
    rows = x.reshape(-1, size)
    squares = torch.baddbmm(eps, rows.unsqueeze(1), rows.unsqueeze(2), alpha=1 / size)
    return (x * squares.rsqrt_().view(*x.shape[:-1], 1)).mul_(weight)


def product(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return `x @ weight.T` of few vectors, `[rows, out_size]`, without gradients.

    A CPU is up to twice as fast at the transposed product, for which it reads the weights in
    order; what comes back is a transposed view of that.
    """
    if x.device.type != "cpu":
        return functional.linear(x, weight)
    return torch.mm(weight, x.t()).t()


@dataclass(frozen=True, slots=True, eq=False)
class Past:
    """What all layers of one cached step share."""

    entries: tuple[torch.Tensor, ...]
    """The cache, one tensor `[rows, 2 * kv_heads, length, head_dim]` per layer."""
    rows: torch.Tensor | slice
    """Which rows of the cache the batch is."""
    longest: int
    """How much of the cache's length is read."""
    slots: torch.Tensor
    """Where keys and values of the new ids go, `[batch * new * 2 * kv_heads]`, in the cache with
    its rows, heads and length laid end to end."""
    mask: torch.Tensor | None
    """As `attend_cached` wants it."""
    cos: torch.Tensor
    """`[batch * new, 1, head_dim]`."""
    sin: torch.Tensor
    """`[batch * new, 1, head_dim]`."""
    eps: torch.Tensor
    """Of the norms, as `normalise` wants it."""
    num_new: int
    """New ids per row."""

    def window(self, entries: torch.Tensor) -> torch.Tensor:
        """Return the part of a layer's cache that the batch reads."""
        return entries[self.rows, :, : self.longest]


class Attention(nn.Module):
    """Grouped-query attention with a norm on each query and key head."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.num_kv_heads = config.num_kv_heads
        self.head_dim = config.head_dim
        self.eps = config.rms_norm_eps
        heads = config.num_heads + 2 * config.num_kv_heads
        self.qkv = Linear(config.hidden_size, heads * config.head_dim)
        self.out = Linear(config.num_heads * config.head_dim, config.hidden_size)
        self.query_norm = nn.Parameter(torch.ones(config.head_dim))
        self.key_norm = nn.Parameter(torch.ones(config.head_dim))

    def head_weight(self) -> torch.Tensor:
        """Return the norm weights of all query and key heads, `[heads + kv_heads, head_dim]`."""
        query, key = self.query_norm, self.key_norm
        return torch.cat([query.expand(self.num_heads, -1), key.expand(self.num_kv_heads, -1)])

    def project(
        self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return normalised, rotated query and key, and value: `[batch, length, heads, dim]`."""
        qkv = rearrange(self.qkv(x), "b t (h d) -> b t h d", d=self.head_dim)
        num_rotated = self.num_heads + self.num_kv_heads
        heads, value = qkv[:, :, :num_rotated], qkv[:, :, num_rotated:]
        normed = functional.rms_norm(heads, (self.head_dim,), eps=self.eps)
        heads = normed * self.head_weight().to(heads.dtype)
        rotated = rotate(heads, cos, sin)
        return rotated[:, :, : self.num_heads], rotated[:, :, self.num_heads :], value

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
        self.gate_up = Linear(config.hidden_size, 2 * config.intermediate_size)
        self.down = Linear(config.intermediate_size, config.hidden_size)

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

    def step(self, x: torch.Tensor, past: Past, layer: int) -> torch.Tensor:
        """Run new ids against the cache of this layer, writing their keys and values into it.

        Args:
            x: `[batch * new, hidden_size]`.
            past: what the layers of this step share.
            layer: the index of this layer.
        """
        attention, feed_forward = self.attention, self.feed_forward
        num_heads, num_kv_heads = attention.num_heads, attention.num_kv_heads
        normed = normalise(x, self.attention_norm.weight, past.eps)
        qkv = product(normed, attention.qkv.weight)
        qkv = qkv.reshape(x.shape[0], -1, attention.head_dim)
        rotated = rotate(
            normalise(qkv[:, : num_heads + num_kv_heads], attention.head_weight(), past.eps),
            past.cos,
            past.sin,
        )
        query, key, value = (
            rotated[:, :num_heads],
            rotated[:, num_heads:],
            qkv[:, num_heads + num_kv_heads :],
        )
        entries = past.entries[layer]
        flat = entries.flatten(0, 2)
        flat.index_copy_(0, past.slots, torch.cat([key, value], dim=1).flatten(0, 1))
        window = past.window(entries)
        keys, values = window[:, :num_kv_heads], window[:, num_kv_heads:]
        if past.num_new == 1:
            grouped = query.view(x.shape[0], num_kv_heads, -1, attention.head_dim)
            mixed = attend_cached(grouped, keys, values, past.mask).flatten(1)
        else:
            grouped = rearrange(
                query, "(b t) (h g) d -> b h (g t) d", t=past.num_new, h=num_kv_heads
            )
            mixed = attend_cached(grouped, keys, values, past.mask)
            mixed = rearrange(mixed, "b h (g t) d -> (b t) (h g d)", t=past.num_new)
        x = x + product(mixed, attention.out.weight)
        normed = normalise(x, self.feed_forward_norm.weight, past.eps)
        gate, up = product(normed, feed_forward.gate_up.weight).chunk(2, dim=1)
        return x + product(functional.silu(gate).mul_(up), feed_forward.down.weight)
