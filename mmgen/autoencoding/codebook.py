"""A codebook that the optimizer moves, as it does every other weight.

There are no running counts, so that averaged weights, exact resumption and processes side by side
need nothing of it. Codes without use in a batch are drawn towards the latents nearest to them (the
idea of Zheng and Vedaldi, "Online Clustered Codebook", 2023), which keeps nearly all of them alive.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmgen.autoencoding.search import closest_codes

__all__ = ["TrainedCodebook"]

PACE = 10.0
"""How much further a step of the optimizer moves a code than another weight."""
NUM_ROUNDS = 8
"""Rounds of k-means before training."""
REVIVAL = 0.1
"""Weight of what draws codes without use towards latents."""


class TrainedCodebook(nn.Module):
    """Code vectors `[size, dim]`; a latent's code is the one with the least distance."""

    def __init__(self, size: int, dim: int, *, deviation: float) -> None:
        """Draw vectors whose numbers have the deviation that is expected of latents."""
        super().__init__()
        # Adam takes steps of one length whatever the gradient; this makes them longer.
        self.table = nn.Parameter(torch.randn(size, dim) * (deviation / PACE))

    @torch.no_grad()
    def begin(self, latents: Tensor) -> None:
        """Let codes begin as k-means of `[num, dim]`, which begins as every so-manieth latent.

        With fewer latents than codes, the rest stay random.
        """
        count = min(len(self.table), len(latents))
        picked = torch.linspace(0, len(latents) - 1, count).round().long()
        self.table[:count] = latents[picked] / PACE
        for _ in range(NUM_ROUNDS):
            codes = self.nearest(latents)
            sums = torch.zeros_like(self.table).index_add_(0, codes, latents)
            counts = torch.bincount(codes, minlength=len(self.table)).unsqueeze(-1)
            # A code that no latent is nearest to stays where it is.
            means = sums / (counts.clamp_min(1) * PACE)
            self.table.copy_(torch.where(counts > 0, means, self.table))

    @property
    def vectors(self) -> Tensor:
        """What the codes name, `[size, dim]`."""
        return self.table * PACE

    def lookup(self, codes: Tensor) -> Tensor:
        """Return the vectors of codes `[...]`, `[..., dim]`."""
        return functional.embedding(codes, self.vectors)

    @torch.no_grad()
    def nearest(self, latents: Tensor) -> Tensor:
        """Return the codes `[...]` of latents `[..., dim]`."""
        codes = closest_codes(latents.reshape(-1, latents.shape[-1]), self.vectors)
        return codes.reshape(latents.shape[:-1])

    def revival(self, latents: Tensor, codes: Tensor) -> Tensor:
        """Return the weighted mean square by which codes without use miss the nearest latents.

        Args:
            latents: all of a batch, `[num, dim]`.
            codes: what they were named, `[num]`.
        """
        idle = torch.ones(len(self.table), dtype=torch.bool, device=codes.device)
        idle[codes] = False
        unused = self.vectors[idle]
        with torch.no_grad():
            scores = unused @ latents.T - latents.square().sum(dim=1) / 2
            nearest = latents[scores.argmax(-1)]
        return (unused - nearest).square().sum() * (REVIVAL / self.table.numel())
