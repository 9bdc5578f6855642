"""Finite scalar quantisation: each latent number is rounded to one of a few levels.

The product of the levels is the codebook, so nothing has to be learned and nothing collapses
(Mentzer et al., "Finite Scalar Quantization: VQ-VAE Made Simple", 2023).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["FiniteScalarQuantizer"]


class FiniteScalarQuantizer(nn.Module):
    """Rounds `[..., dims]` to levels and numbers the result in mixed radix, first axis fastest."""

    levels: Tensor
    strides: Tensor

    def __init__(self, levels: tuple[int, ...]) -> None:
        super().__init__()
        strides = [math.prod(levels[:axis]) for axis in range(len(levels))]
        self.register_buffer("levels", torch.tensor(levels), persistent=False)
        self.register_buffer("strides", torch.tensor(strides), persistent=False)
        self.codebook_size = math.prod(levels)

    def bound(self, latents: Tensor) -> Tensor:
        """Squash `[..., dims]` so that rounding gives exactly `levels` integers per axis."""
        half = (self.levels - 1) * (1 - 1e-3) / 2
        # An even number of levels has no middle integer; shift so that rounding stays balanced.
        offset = torch.where(self.levels % 2 == 0, 0.5, 0.0)
        shift = torch.atanh(offset / half)
        return torch.tanh(latents + shift) * half - offset

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Return quantised `[..., dims]` in about -1..1 and codes `[...]`.

        Rounding passes gradients straight through.
        """
        bounded = self.bound(latents)
        rounded = bounded + (bounded.round() - bounded).detach()
        return self.normalise(rounded), self.indices(bounded.round())

    def normalise(self, rounded: Tensor) -> Tensor:
        """Scale signed integers `[..., dims]` to about -1..1."""
        return rounded / (self.levels // 2)

    def indices(self, rounded: Tensor) -> Tensor:
        """Number signed integers `[..., dims]` as codes `[...]`, int64."""
        digits = rounded.long() + self.levels // 2
        return (digits * self.strides).sum(dim=-1)

    def vectors(self, codes: Tensor) -> Tensor:
        """Return what codes `[...]` name, `[..., dims]`: the exact inverse of the numbering."""
        digits = torch.div(codes.unsqueeze(-1), self.strides, rounding_mode="floor") % self.levels
        return self.normalise((digits - self.levels // 2).to(torch.get_default_dtype()))
