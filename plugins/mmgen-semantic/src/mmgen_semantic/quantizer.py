"""Two quantizers side by side: one names what is at a place, the other how it looks."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from mmgen.autoencoding import (
    AbstractQuantizer,
    FiniteScalarQuantizer,
    Quantized,
    TrainedCodebook,
)

__all__ = ["DualQuantizer"]

COMMITMENT = 0.25
"""Weight of what draws latents to their codes, against what draws codes to latents."""


class DualQuantizer(AbstractQuantizer):
    """Latents `[..., meaning_dim + pixel_dim]` to a semantic and a pixel code.

    The semantic half is brought to unit variance and finds the nearest of a learned codebook. The
    pixel half is rounded to levels, as by fsq.
    """

    def __init__(self, codebook_size: int, meaning_dim: int, levels: tuple[int, ...]) -> None:
        super().__init__()
        self.meaning_dim = meaning_dim
        self.meanings = TrainedCodebook(codebook_size, meaning_dim, deviation=1.0)
        self.pixels = FiniteScalarQuantizer(levels)
        self.dim = meaning_dim + self.pixels.dim
        self.codebook_sizes = (codebook_size, *self.pixels.codebook_sizes)

    def begin(self, meanings: Tensor) -> None:
        """Let the semantic codes begin as k-means of latents `[num, meaning_dim]`."""
        self.meanings.begin(functional.layer_norm(meanings, (self.meaning_dim,)))

    def forward(self, latents: Tensor) -> Quantized:
        split = [self.meaning_dim, self.pixels.dim]
        meaning, pixel = torch.split(latents, split, dim=-1)
        meaning = functional.layer_norm(meaning, (self.meaning_dim,))
        codes = self.meanings.nearest(meaning)
        named = self.meanings.lookup(codes)
        pixels = self.pixels(pixel)
        return Quantized(
            vectors=torch.cat([meaning + (named - meaning).detach(), pixels.vectors], dim=-1),
            codes=torch.cat([codes.unsqueeze(-1), pixels.codes], dim=-1),
            losses=self._losses(meaning, named, codes) if self.training else {},
        )

    def vectors(self, codes: Tensor) -> Tensor:
        meanings, pixels = torch.split(codes, 1, dim=-1)
        return torch.cat(
            [self.meanings.lookup(meanings.squeeze(-1)), self.pixels.vectors(pixels)], dim=-1
        )

    def code_vectors(self, codebook: int) -> Tensor:
        return self.meanings.vectors if codebook == 0 else self.pixels.code_vectors(0)

    def _losses(self, meaning: Tensor, named: Tensor, codes: Tensor) -> dict[str, Tensor]:
        latents = meaning.detach().flatten(0, -2)
        return {
            "codebook": functional.mse_loss(named, meaning.detach()),
            "commitment": functional.mse_loss(meaning, named.detach()) * COMMITMENT,
            "revival": self.meanings.revival(latents, codes.flatten()),
        }
