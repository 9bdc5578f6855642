"""Transformer blocks for tokenizers whose codes have no place in the picture.

Pre-norm blocks over sequences of a fixed meaning: every position says by a learned vector of its
own what it is, so there is neither a mask nor a rotation.
"""

from __future__ import annotations

import math

from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["Transformer", "TransformerBlock"]


class TransformerBlock(nn.Module):
    """Attention of all positions to all, then a perceptron, each added to `[batch, n, width]`."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.projections = nn.Linear(width, 3 * width)
        self.attended = nn.Linear(width, width)
        self.perceptron_norm = nn.LayerNorm(width)
        self.hidden = nn.Linear(width, 4 * width)
        self.perceived = nn.Linear(4 * width, width)
        self._num_heads = num_heads
        # Small branches at the start: a deep stack then begins as little more than its input.
        for branch in (self.attended, self.perceived):
            nn.init.normal_(branch.weight, std=0.2 / math.sqrt(branch.in_features))
            nn.init.zeros_(branch.bias)

    def forward(self, features: Tensor, is_present: Tensor | None = None) -> Tensor:
        """Return new features.

        Args:
            features: `[batch, n, width]`.
            is_present: which positions may be looked at, bool `[batch, n]`; without it, all.
        """
        queries, keys, values = rearrange(
            self.projections(self.attention_norm(features)),
            "b n (three h d) -> three b h n d",
            three=3,
            h=self._num_heads,
        )
        mask = None if is_present is None else rearrange(is_present, "b n -> b 1 1 n")
        mixed = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
        features = features + self.attended(rearrange(mixed, "b h n d -> b n (h d)"))
        hidden = functional.gelu(self.hidden(self.perceptron_norm(features)))
        out: Tensor = features + self.perceived(hidden)
        return out


class Transformer(nn.Module):
    """Blocks one after another; what comes out is not normalised."""

    def __init__(self, width: int, num_heads: int, num_layers: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(TransformerBlock(width, num_heads) for _ in range(num_layers))

    def forward(self, features: Tensor, is_present: Tensor | None = None) -> Tensor:
        for block in self.blocks:
            features = block(features, is_present)
        return features
