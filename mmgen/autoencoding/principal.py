"""Principal components of small pictures: where codes of a sequence begin before they learn more.

They are found once, from some of the training pictures, and stay as they are: what networks around
them learn is the difference. So the first codes say most about a picture from the first step on,
and every prefix is a picture, if a blurred one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from mmgen.autoencoding.quantizer import AbstractQuantizer

__all__ = ["Expectation", "PrincipalComponents"]

GAIN = 0.8
"""Deviation of the latents that components are scaled to; 7 or 5 levels lose least at about it."""

NUM_ROUNDS = 3
"""Power iterations; more changes nothing that is worth a code."""


@dataclass(frozen=True, slots=True, eq=False)
class Expectation:
    """What pictures are held to be before they are seen, so that latents say only what is left."""

    latents: Tensor
    """`[batch, positions, dim]`, as `PrincipalComponents.analysed` gives them without it."""
    sharpness: Tensor
    """What the rest is multiplied by, `[positions, dim]`: it varies less than the whole does."""

    def of(self, part: Tensor) -> Expectation:
        """Return that of some of the pictures, by their places."""
        return Expectation(self.latents[part], self.sharpness)


class PrincipalComponents(nn.Module):
    """Pictures `[batch, 3, side, side]` at half their size, to latents and back.

    A latent `[positions, dim]` holds `dim` components at each position, the largest first.
    """

    def __init__(self, *, side: int, num_positions: int, dim: int) -> None:
        super().__init__()
        size = 3 * (side // 2) ** 2
        self.mean = nn.Parameter(torch.zeros(size), requires_grad=False)
        self.components = nn.Parameter(
            torch.randn(num_positions * dim, size) / size**0.5, requires_grad=False
        )
        self.gains = nn.Parameter(torch.ones(num_positions, dim), requires_grad=False)
        self.strengths = nn.Parameter(torch.ones(num_positions, dim), requires_grad=False)
        self._half = side // 2

    def fit(self, images: Tensor, quantizer: AbstractQuantizer) -> None:
        """Find the components of `[num_images, 3, side, side]`, and what codes of them are worth.

        Components beyond the number of pictures stay random.
        """
        small = functional.avg_pool2d(images, 2).flatten(1)
        count = min(len(self.components), len(small) - 1, small.shape[1])
        with torch.no_grad():
            self.mean.copy_(small.mean(dim=0))
            centred = small - self.mean
            _, _, found = torch.svd_lowrank(
                centred, q=min(count + 10, *small.shape), niter=NUM_ROUNDS
            )
            self.components[:count].copy_(found.T[:count])
            strengths = centred @ self.components.T
            positions, dim = self.gains.shape
            strengths = rearrange(strengths, "n (p d) -> n p d", p=positions, d=dim)
            self.gains.copy_(GAIN / strengths.std(dim=0).clamp_min(1e-4))
            vectors = quantizer(strengths * self.gains).vectors
            # Least squares: what a vector stands for on average.
            self.strengths.copy_(
                (vectors * strengths).sum(dim=0) / vectors.square().sum(dim=0).clamp_min(1e-4)
            )

    @property
    def is_fitted(self) -> bool:
        """Whether the components are those of some pictures."""
        return bool(self.mean.any())

    def analysed(self, images: Tensor, expectation: Expectation | None = None) -> Tensor:
        """Return latents `[batch, positions, dim]`, of what was not expected."""
        small = functional.avg_pool2d(images, 2).flatten(1)
        strengths = (small - self.mean) @ self.components.T
        latents = rearrange(strengths, "n (p d) -> n p d", d=self.gains.shape[1]) * self.gains
        if expectation is None:
            return latents
        return (latents - expectation.latents) * expectation.sharpness

    def assembled(self, vectors: Tensor, expectation: Expectation | None = None) -> Tensor:
        """Return pictures `[batch, 3, side / 2, side / 2]` of `[batch, length, dim]`.

        Beyond the length they are as expected; without an expectation, as pictures are on average.
        """
        length = vectors.shape[1]
        told = vectors * self.strengths[:length]
        if expectation is not None:
            expected = expectation.latents / self.gains
            told = told / expectation.sharpness[:length] + expected[:, :length]
            told = torch.cat([told, expected[:, length:]], dim=1)
        strengths = told.flatten(1)
        flat = strengths @ self.components[: strengths.shape[1]] + self.mean
        return rearrange(flat, "n (c h w) -> n c h w", c=3, h=self._half)
