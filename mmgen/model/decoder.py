"""The decoder: a transformer of Qwen3's shape, with a packed pass and a cached pass.

The packed pass is for training: rows hold several documents, and none sees another. The cached
pass is for generation: rows stand at different positions and advance together. Both give hidden
states; logits are a separate call, so that they are computed only where they are wanted.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from mmgen.model.attention import plan_attention
from mmgen.model.config import DecoderConfig
from mmgen.model.kv_cache import KVCache
from mmgen.model.layers import Block, RMSNorm, rotary_tables

__all__ = ["Decoder", "init_weights"]


class Decoder(nn.Module):
    """Ids to hidden states to logits."""

    cos: torch.Tensor
    sin: torch.Tensor

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tie_word_embeddings:
            self.head.weight = self.embedding.weight
        cos, sin = rotary_tables(config)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

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
        num_new = ids.shape[1]
        longest = int(lengths.max()) + num_new
        assert longest <= cache.length, f"{longest} ids do not fit a cache of {cache.length}"
        device = ids.device
        offsets = torch.arange(num_new, device=device)
        positions = lengths[:, None] + offsets
        if isinstance(rows, slice):
            row = torch.arange(*rows.indices(cache.rows), device=device)[:, None]
        else:
            row = rows[:, None]
        x = self.embedding(ids)
        dtype = self._compute_dtype(x)
        cos, sin = self._rotation(positions, dtype)
        hidden = torch.arange(longest, device=device) > positions[:, :, None]
        group = 1 if num_new == 1 else self.config.num_heads // self.config.num_kv_heads
        mask = torch.zeros(hidden.shape, dtype=dtype, device=device)
        mask = mask.masked_fill_(hidden, -torch.inf).repeat(1, group, 1).unsqueeze(1)
        for index, block in enumerate(self.blocks):
            x = block.step(
                x, cos, sin, cache.keys[index], cache.values[index], (row, positions), rows, mask
            )
        out: torch.Tensor = self.norm(x)
        return out

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
