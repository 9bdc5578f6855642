"""The decoder: a transformer of Qwen3's shape, with a packed pass and a cached pass.

The packed pass is for training: rows hold several documents, and none sees another. The cached
pass is for generation: rows stand at different positions and advance together. Both give hidden
states; logits are a separate call, so that they are computed only where they are wanted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import torch
from torch import nn
from torch.nn import functional

from mmgen.model.attention import plan_attention
from mmgen.model.config import DecoderConfig
from mmgen.model.kv_cache import KVCache
from mmgen.model.layers import Block, Embedding, Linear, Past, RMSNorm, normalise, rotary_tables

__all__ = ["Decoder", "init_weights"]


class Decoder(nn.Module):
    """Ids to hidden states to logits; all matrices are zero until weights are given."""

    cos: torch.Tensor
    sin: torch.Tensor

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = Embedding(config.vocab_size, config.hidden_size)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.head = Linear(config.hidden_size, config.vocab_size)
        cos, sin = rotary_tables(config)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        if config.tie_word_embeddings:
            self.head.weight = self.embedding.weight

    def tie(self) -> None:
        """Derive again what follows from the weights: a tied output layer and the rotary tables.

        Whoever replaces the weights, and not only their values, calls this afterwards.
        """
        if self.config.tie_word_embeddings:
            self.head.weight = self.embedding.weight
        cos, sin = rotary_tables(self.config)
        device = self.embedding.weight.device
        self.cos, self.sin = cos.to(device), sin.to(device)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Self:
        """Move or convert the weights; the rotary tables move but stay exact."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.tie()
        return self

    def forward(
        self,
        ids: torch.Tensor,
        positions: torch.Tensor,
        document_ids: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return normalised hidden states `[batch, length, hidden_size]`.

        Args:
            ids: `[batch, length]`.
            positions: `[batch, length]`, counted within each document.
            document_ids: `[batch, length]`; ids see only earlier ids of their own document.
                Without it, every id sees the whole row before it.
        """
        x = self.embedding(ids)
        dtype = self._compute_dtype(x)
        plan = plan_attention(document_ids, dtype)
        cos, sin = self._rotation(positions, dtype)
        for block in self.blocks:
            x = block(x, cos, sin, plan)
        out: torch.Tensor = self.norm(x)
        return out

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return scores `[..., vocab_size]` of hidden states `[..., hidden_size]`."""
        out: torch.Tensor = self.head(hidden)
        return out

    @torch.inference_mode()
    def step(
        self,
        ids: torch.Tensor,
        cache: KVCache,
        rows: torch.Tensor | slice,
        lengths: torch.Tensor,
    ) -> torch.Tensor:
        """Extend sequences in the cache; return normalised hidden states of the new ids.

        For one id per row this is decoding, for more it is prefill: rows with fewer new ids are
        filled up on the right with any id, and what comes of those is to be ignored; the next
        call, with the true lengths, overwrites it.

        Args:
            ids: `[batch, new]`.
            cache: written in place at each row's next `new` positions.
            rows: the rows of the cache that the batch is, each once.
            lengths: `[batch]`, ids already in each row.
        """
        num_rows, num_new = ids.shape
        longest = int(lengths.max()) + num_new
        assert longest <= cache.length, f"{longest} ids do not fit a cache of {cache.length}"
        rows = _as_slice(rows)
        device = ids.device
        positions = lengths[:, None] + torch.arange(num_new, device=device)
        x = functional.embedding(ids.flatten(), self.embedding.weight)
        past = Past(
            entries=cache.entries.unbind(0),
            rows=rows,
            longest=longest,
            slots=_slots(cache, rows, positions),
            mask=self._cached_mask(positions, longest, x.dtype),
            cos=functional.embedding(positions.flatten(), self.cos).unsqueeze(1).to(x.dtype),
            sin=functional.embedding(positions.flatten(), self.sin).unsqueeze(1).to(x.dtype),
            eps=torch.full((1, 1, 1), self.norm.eps),
            num_new=num_new,
        )
        for layer, block in enumerate(self.blocks):
            assert isinstance(block, Block)
            x = block.step(x, past, layer)
        normed = normalise(x, self.norm.weight, past.eps)
        return normed.reshape(num_rows, num_new, -1)

    def _cached_mask(
        self, positions: torch.Tensor, longest: int, dtype: torch.dtype
    ) -> torch.Tensor | None:
        if positions.shape[1] == 1:
            if bool((positions == longest - 1).all()):
                return None
            group = 1
        else:
            group = self.config.num_heads // self.config.num_kv_heads
        unseen = torch.arange(longest, device=positions.device) > positions[:, :, None]
        mask = torch.zeros(unseen.shape, dtype=dtype, device=positions.device)
        return mask.masked_fill_(unseen, -torch.inf).repeat(1, group, 1).unsqueeze(1)

    def _rotation(
        self, positions: torch.Tensor, dtype: torch.dtype
    ) -> tuple[torch.Tensor, torch.Tensor]:
        cos = functional.embedding(positions, self.cos).unsqueeze(2)
        sin = functional.embedding(positions, self.sin).unsqueeze(2)
        return cos.to(dtype), sin.to(dtype)

    @staticmethod
    def _compute_dtype(x: torch.Tensor) -> torch.dtype:
        """Return the type of the matrix products: the weights', unless autocast says otherwise."""
        kind = x.device.type
        return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def _as_slice(rows: torch.Tensor | slice) -> torch.Tensor | slice:
    """Return neighbouring rows as a slice, whose part of the cache need not be copied."""
    if isinstance(rows, slice):
        return rows
    numbers = rows.tolist()
    first, stop = numbers[0], numbers[0] + len(numbers)
    return slice(first, stop) if numbers == list(range(first, stop)) else rows


def _slots(cache: KVCache, rows: torch.Tensor | slice, positions: torch.Tensor) -> torch.Tensor:
    """Return `Past.slots` of new ids at `positions`, `[batch, new]`."""
    device = positions.device
    if isinstance(rows, slice):
        rows = torch.arange(*rows.indices(cache.rows), device=device)
    num_heads = cache.entries.shape[2]
    heads = rows[:, None] * num_heads + torch.arange(num_heads, device=device)
    return (heads[:, None, :] * cache.length + positions[:, :, None]).flatten()


def init_weights(decoder: Decoder, seed: int) -> None:
    """Fill a decoder with fresh random weights, the same for the same seed.

    Matrices are normal with deviation 0.02; those that write into the residual stream are smaller
    by the square root of how many of them add up there. Norms start at one.
    """
    generator = torch.Generator().manual_seed(seed)
    residual = 0.02 / (2 * decoder.config.num_layers) ** 0.5
    with torch.no_grad():
        for name, parameter in decoder.named_parameters():
            if parameter.ndim == 1:
                parameter.fill_(1.0)
                continue
            is_residual = name.endswith(("attention.out.weight", "feed_forward.down.weight"))
            drawn = torch.empty(parameter.shape, dtype=torch.float32)
            drawn.normal_(0.0, residual if is_residual else 0.02, generator=generator)
            parameter.copy_(drawn)
