"""Residual quantisation over scales: each grid of codes says what the coarser ones left open.

One codebook serves all scales. A grid is averaged down, named, interpolated up and smoothed by a
small convolution before the next finer grid sees what remains (Tian et al., "Visual Autoregressive
Modeling: Scalable Image Generation via Next-Scale Prediction", 2024).
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from mmgen.autoencoding import AbstractQuantizer, Quantized, TrainedCodebook

__all__ = ["ScaleQuantizer", "sizes_of"]

COMMITMENT = 0.25
"""Weight of what draws latents to their codes, against what draws codes to latents."""


def sizes_of(shares: Sequence[Fraction], rows: int, columns: int) -> tuple[tuple[int, int], ...]:
    """Return `(rows, columns)` of every scale of a grid; the last is the grid itself."""
    return tuple((max(1, int(rows * share)), max(1, int(columns * share))) for share in shares)


class Smoothing(nn.Module):
    """Half the vectors as they are, half through a 3x3 convolution (VAR's phi)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(dim, dim, 3, padding=1)
        nn.init.dirac_(self.convolution.weight)
        assert self.convolution.bias is not None
        nn.init.zeros_(self.convolution.bias)

    def forward(self, vectors: Tensor) -> Tensor:
        """Smooth `[batch, dim, rows, columns]`."""
        smoothed: Tensor = self.convolution(vectors)
        return (vectors + smoothed) / 2


class ScaleQuantizer(AbstractQuantizer):
    """Latents `[batch, rows, columns, dim]` to codes `[batch, positions, 1]`, coarse to fine.

    In training some pictures of a batch keep only their first scales, in turn, so that the decoder
    learns what a prefix looks like.
    """

    def __init__(
        self, shares: Sequence[Fraction], codebook_size: int, dim: int, prefix_share: float
    ) -> None:
        super().__init__()
        self.dim = dim
        self.codebook_sizes = (codebook_size,)
        self.codebook = TrainedCodebook(codebook_size, dim, deviation=0.5)
        self.smoothing = nn.ModuleList(Smoothing(dim) for _ in shares)
        self._shares = tuple(shares)
        self._prefix_share = prefix_share

    def forward(self, latents: Tensor) -> Quantized:
        # Bounded as those of fsq are, whose encoder and decoder may be where training starts.
        target = rearrange(latents.tanh(), "b h w d -> b d h w")
        rows, columns = target.shape[2:]
        total = torch.zeros_like(target)
        sums: list[Tensor] = []
        codes: list[Tensor] = []
        seen: list[Tensor] = []
        for index, size in enumerate(sizes_of(self._shares, rows, columns)):
            rest = functional.adaptive_avg_pool2d((target - total).detach(), size)
            rest = rearrange(rest, "b d h w -> b (h w) d")
            named = self.codebook.nearest(rest)
            codes.append(named)
            seen.append(rest)
            total = total + self._spread(index, self.codebook.lookup(named), size, (rows, columns))
            sums.append(total)
        return Quantized(
            vectors=rearrange(self._straight_through(target, sums), "b d h w -> b h w d"),
            codes=torch.cat(codes, dim=1).unsqueeze(-1),
            losses=self._losses(target, sums, codes, seen) if self.training else {},
        )

    def vectors(self, codes: Tensor) -> Tensor:
        """Return what codes `[..., 1]` name in the codebook, `[..., dim]`, whatever their scale."""
        return self.codebook.lookup(codes.squeeze(-1))

    def code_vectors(self, codebook: int) -> Tensor:
        return self.codebook.vectors

    def assembled(self, codes: Tensor, rows: int, columns: int) -> Tensor:
        """Return the sum `[batch, rows, columns, dim]` of the first codes `[batch, positions]`.

        Codes may stop anywhere: scales that did not begin add nothing, nor do missing positions.
        """
        total = torch.zeros(len(codes), self.dim, rows, columns, device=codes.device)
        start = 0
        for index, size in enumerate(sizes_of(self._shares, rows, columns)):
            stop = start + size[0] * size[1]
            if start < codes.shape[1]:
                vectors = self.codebook.lookup(codes[:, start:stop])
                missing = stop - start - vectors.shape[1]
                vectors = functional.pad(vectors, (0, 0, 0, missing))
                total = total + self._spread(index, vectors, size, (rows, columns))
            start = stop
        return rearrange(total, "b d h w -> b h w d")

    def _spread(
        self, index: int, vectors: Tensor, size: tuple[int, int], whole: tuple[int, int]
    ) -> Tensor:
        """Interpolate `[batch, positions, dim]` of one scale to the whole grid, smoothed."""
        grid = rearrange(vectors, "b (h w) d -> b d h w", h=size[0], w=size[1])
        if size != whole:
            grid = functional.interpolate(grid, whole, mode="bicubic")
        spread: Tensor = self.smoothing[index](grid)
        return spread

    def _straight_through(self, target: Tensor, sums: Sequence[Tensor]) -> Tensor:
        """Return the last sums, with gradients to the latents; some stop at an earlier scale."""
        vectors = sums[-1]
        count = int(len(target) * self._prefix_share) if self.training else 0
        if count and len(sums) > 1:
            early = [sums[item % (len(sums) - 1)][item] for item in range(count)]
            vectors = torch.cat([torch.stack(early), vectors[count:]])
        return target + (vectors - target).detach()

    def _losses(
        self,
        target: Tensor,
        sums: Sequence[Tensor],
        codes: Sequence[Tensor],
        seen: Sequence[Tensor],
    ) -> dict[str, Tensor]:
        fixed = target.detach()
        errors = [functional.mse_loss(total, fixed) for total in sums]
        commitments = [functional.mse_loss(target, total.detach()) for total in sums]
        return {
            "codebook": torch.stack(errors).mean(),
            "commitment": torch.stack(commitments).mean() * COMMITMENT,
            "revival": self.codebook.revival(
                rearrange(torch.cat(list(seen), 1), "b p d -> (b p) d"),
                torch.cat(list(codes), 1).flatten(),
            ),
        }
