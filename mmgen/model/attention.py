"""The one door to attention kernels: which ids see which, and the call that computes it.

A training batch makes one `AttentionPlan` and every layer uses it. On a GPU with half-precision
inputs the plan is one of flash-attn or xformers when installed, which skip the pairs of ids in
different documents altogether; everywhere else it is a mask for torch's own kernel.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, TypeAlias

import torch
from einops import rearrange
from torch.nn import functional

__all__ = [
    "AttentionPlan",
    "CausalPlan",
    "FlashPlan",
    "MaskPlan",
    "XformersPlan",
    "attend",
    "attend_cached",
    "document_starts",
    "plan_attention",
]


@dataclass(frozen=True, slots=True, eq=False)
class CausalPlan:
    """Every id sees itself and all before it in its row."""


@dataclass(frozen=True, slots=True, eq=False)
class MaskPlan:
    """An additive mask: 0 where a query (next to last axis) sees a key (last axis), else -inf."""

    mask: torch.Tensor


@dataclass(frozen=True, slots=True, eq=False)
class FlashPlan:
    """Documents laid end to end, for flash-attn: their boundaries and the longest."""

    boundaries: torch.Tensor
    longest: int


@dataclass(frozen=True, slots=True, eq=False)
class XformersPlan:
    """Documents laid end to end, for xformers: its own block-diagonal causal bias."""

    bias: Any


AttentionPlan: TypeAlias = CausalPlan | MaskPlan | FlashPlan | XformersPlan


def plan_attention(document_ids: torch.Tensor | None, dtype: torch.dtype) -> AttentionPlan:
    """Return how a batch attends: causally, and within a document when documents are given.

    Args:
        document_ids: `[batch, length]`; equal neighbours in a row are one document.
        dtype: in which the queries, keys and values will come.
    """
    if document_ids is None:
        return CausalPlan()
    if document_ids.is_cuda and dtype in (torch.float16, torch.bfloat16):
        if _is_installed("flash_attn"):
            return _plan_flash(document_ids)
        if _is_installed("xformers"):
            return _plan_xformers(document_ids)
    same = document_ids[:, :, None] == document_ids[:, None, :]
    visible = same.tril().unsqueeze(1)
    mask = torch.zeros(visible.shape, dtype=dtype, device=document_ids.device)
    return MaskPlan(mask.masked_fill_(~visible, -torch.inf))


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, plan: AttentionPlan
) -> torch.Tensor:
    """Return softmax(query · key) · value, `[batch, length, heads, head_dim]`.

    Args:
        query: `[batch, length, heads, head_dim]`.
        key: `[batch, length, kv_heads, head_dim]`.
        value: like `key`.
        plan: from `plan_attention` for this batch.
    """
    match plan:
        case FlashPlan():
            return _attend_flash(query, key, value, plan)
        case XformersPlan():
            return _attend_xformers(query, key, value, plan)
    mask = plan.mask if isinstance(plan, MaskPlan) else None
    out = functional.scaled_dot_product_attention(
        query.transpose(1, 2),
        key.transpose(1, 2),
        value.transpose(1, 2),
        attn_mask=mask,
        is_causal=mask is None,
        enable_gqa=query.shape[2] != key.shape[2],
    )
    return out.transpose(1, 2)


def attend_cached(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor | None
) -> torch.Tensor:
    """Return attention of new ids over cached ones, `[batch, kv_heads, new, head_dim]`.

    The query heads that share a key head are taken for further new ids, which spares repeating
    the cache.

    Args:
        query: `[batch, kv_heads, new, head_dim]`.
        keys: `[batch, kv_heads, cached, head_dim]`.
        values: like `keys`.
        mask: additive, `[batch, 1, new or 1, cached]`; none when every new id sees everything.
    """
    return functional.scaled_dot_product_attention(query, keys, values, attn_mask=mask)


@cache
def _is_installed(package: str) -> bool:
    return find_spec(package) is not None


def document_starts(document_ids: torch.Tensor) -> torch.Tensor:
    """Return where documents start, counted over the rows laid end to end, and the total."""
    is_start = torch.ones_like(document_ids, dtype=torch.bool)
    is_start[:, 1:] = document_ids[:, 1:] != document_ids[:, :-1]
    starts = is_start.flatten().nonzero().flatten()
    return torch.cat([starts, starts.new_tensor([document_ids.numel()])]).int()


def _plan_flash(document_ids: torch.Tensor) -> FlashPlan:
    boundaries = document_starts(document_ids)
    return FlashPlan(boundaries=boundaries, longest=int(boundaries.diff().max()))


def _plan_xformers(document_ids: torch.Tensor) -> XformersPlan:
    masks = import_module("xformers.ops.fmha.attn_bias")
    lengths = document_starts(document_ids).diff().tolist()
    return XformersPlan(masks.BlockDiagonalCausalMask.from_seqlens(lengths))


def _attend_flash(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, plan: FlashPlan
) -> torch.Tensor:
    flash = import_module("flash_attn")
    out: torch.Tensor = flash.flash_attn_varlen_func(
        rearrange(query, "b t h d -> (b t) h d"),
        rearrange(key, "b t h d -> (b t) h d"),
        rearrange(value, "b t h d -> (b t) h d"),
        plan.boundaries,
        plan.boundaries,
        plan.longest,
        plan.longest,
        causal=True,
    )
    return rearrange(out, "(b t) h d -> b t h d", b=query.shape[0])


def _attend_xformers(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, plan: XformersPlan
) -> torch.Tensor:
    ops = import_module("xformers.ops")
    group = query.shape[2] // key.shape[2]
    key, value = (
        rearrange(side, "b t h d -> 1 (b t) h 1 d").expand(-1, -1, -1, group, -1)
        for side in (key, value)
    )
    grouped = rearrange(query, "b t (h g) d -> 1 (b t) h g d", g=group)
    out: torch.Tensor = ops.memory_efficient_attention(grouped, key, value, attn_bias=plan.bias)
    return rearrange(out, "1 (b t) h g d -> b t (h g) d", b=query.shape[0])
