"""Finite scalar quantisation: each latent number is rounded to one of a few levels.

The product of the levels is the codebook, so nothing has to be learned and nothing collapses
(Mentzer et al., "Finite Scalar Quantization: VQ-VAE Made Simple", 2023).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mmgen.autoencoding.quantizer import AbstractQuantizer, Quantized

__all__ = ["FiniteScalarQuantizer"]


class FiniteScalarQuantizer(AbstractQuantizer):
    """Rounds `[..., dims]` to levels and numbers the result in mixed radix, first axis fastest."""

    levels: Tensor
    strides: Tensor

    def __init__(self, levels: tuple[int, ...]) -> None:
        super().__init__()
        strides = [math.prod(levels[:axis]) for axis in range(len(levels))]
        self.register_buffer("levels", torch.tensor(levels), persistent=False)
        self.register_buffer("strides", torch.tensor(strides), persistent=False)
        self.dim = len(levels)
        self.codebook_sizes = (math.prod(levels),)

    def bound(self, latents: Tensor) -> Tensor:
        """Squash `[..., dims]` so that rounding gives exactly `levels` integers per axis."""
        half = (self.levels - 1) * (1 - 1e-3) / 2
        # An even number of levels has no middle integer; shift so that rounding stays balanced.
        offset = torch.where(self.levels % 2 == 0, 0.5, 0.0)
        shift = torch.atanh(offset / half)
        return torch.tanh(latents + shift) * half - offset

    def forward(self, latents: Tensor) -> Quantized:
        """Return quantised `[..., dims]` in about -1..1 and codes `[..., 1]`.

        Rounding passes gradients straight through, and needs no extra loss.
        """
        bounded = self.bound(latents)
        rounded = bounded + (bounded.round() - bounded).detach()
        return Quantized(self.normalise(rounded), self.indices(bounded.round()))

    def normalise(self, rounded: Tensor) -> Tensor:
        """Scale signed integers `[..., dims]` to about -1..1."""
        return rounded / (self.levels // 2)

    def indices(self, rounded: Tensor) -> Tensor:
        """Number signed integers `[..., dims]` as codes `[..., 1]`, int64."""
        digits = rounded.long() + self.levels // 2
        return (digits * self.strides).sum(dim=-1, keepdim=True)

    def vectors(self, codes: Tensor) -> Tensor:
        """Return what codes `[..., 1]` name, `[..., dims]`: the inverse of the numbering."""
        digits = torch.div(codes, self.strides, rounding_mode="floor") % self.levels
        return self.normalise((digits - self.levels // 2).to(torch.float32))

    def code_vectors(self, codebook: int) -> Tensor:
        """Return all vectors, `[codebook_size, dims]`."""
        (size,) = self.codebook_sizes
        return self.vectors(torch.arange(size, device=self.levels.device).unsqueeze(-1))
