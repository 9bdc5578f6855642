"""A table of code vectors that follows the latents assigned to it.

The vectors are running means of their latents rather than trained by gradients (van den Oord et
al., "Neural Discrete Representation Learning", 2017, appendix A.1). A code that hardly anything is
assigned to moves to a latent that the codebook represents badly, so none is lost for good.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmgen.autoencoding import best_codes, closest_codes

__all__ = ["AbstractCodebook", "EuclideanCodebook", "SphericalCodebook"]

DEAD_SHARE = 0.1
"""A code is dead with less than this share of the latents that it would have were all equal."""


class AbstractCodebook(nn.Module, ABC):
    """Code vectors `[size, dim]`, and how many latents each had lately."""

    vectors: Tensor
    mass: Tensor
    num_updates: Tensor

    def __init__(self, size: int, dim: int, *, decay: float) -> None:
        """Make a codebook whose every code waits to be given a latent.

        Args:
            size: number of codes.
            dim: numbers of a vector.
            decay: of the running means, a batch.
        """
        super().__init__()
        # Buffers, not parameters: no gradient reaches them, and they are already averages.
        self.register_buffer("vectors", self.placed(torch.randn(size, dim)))
        self.register_buffer("mass", torch.zeros(size))
        self.register_buffer("num_updates", torch.zeros(()))
        self._decay = decay

    @property
    def size(self) -> int:
        """Number of codes."""
        return len(self.vectors)

    @abstractmethod
    def placed(self, latents: Tensor) -> Tensor:
        """Return `[..., dim]` where code vectors may lie."""

    @abstractmethod
    def nearest(self, latents: Tensor) -> Tensor:
        """Return for placed latents `[num, dim]` the codes of the nearest vectors, `[num]`."""

    def lookup(self, codes: Tensor) -> Tensor:
        """Return the vectors of codes `[...]`, `[..., dim]`."""
        return functional.embedding(codes, self.vectors)

    @torch.no_grad()
    def update(self, latents: Tensor, codes: Tensor) -> None:
        """Move vectors towards the latents assigned to them, then give dead codes a new place.

        Args:
            latents: `[num, dim]`, placed.
            codes: `[num]`, the code of each.
        """
        latents = latents.detach()
        errors = (latents - self.lookup(codes)).square().sum(dim=-1)
        counts = torch.bincount(codes, minlength=self.size).to(self.mass.dtype)
        sums = torch.zeros_like(self.vectors).index_add_(0, codes, latents)
        self.mass.lerp_(counts, 1 - self._decay)
        # The running mean of sums and counts, as one step: a code without latents does not move.
        pull = (sums - counts.unsqueeze(-1) * self.vectors) * (1 - self._decay)
        self.vectors += pull / self.mass.clamp_min(1e-12).unsqueeze(-1)
        self.vectors.copy_(self.placed(self.vectors))
        self._revive(latents, errors)
        self.num_updates += 1

    def _revive(self, latents: Tensor, errors: Tensor) -> None:
        """Move dead codes to latents, drawn in proportion to their squared errors."""
        fair = len(latents) / self.size
        dead = (self.mass < DEAD_SHARE * fair).nonzero().squeeze(-1)
        count = min(len(dead), int(errors.count_nonzero()))
        if count == 0:
            return
        # Drawn from the number of the update, so that a run that was resumed draws the same.
        generator = torch.Generator(latents.device).manual_seed(int(self.num_updates))
        chosen = torch.multinomial(errors, count, generator=generator)
        revived = dead[torch.randperm(len(dead), generator=generator, device=dead.device)[:count]]
        self.vectors[revived] = latents[chosen]
        self.mass[revived] = fair


class EuclideanCodebook(AbstractCodebook):
    """Vectors anywhere; the nearest is the one with the least distance."""

    def placed(self, latents: Tensor) -> Tensor:
        return latents

    def nearest(self, latents: Tensor) -> Tensor:
        return closest_codes(latents, self.vectors)


class SphericalCodebook(AbstractCodebook):
    """Vectors of length 1; the nearest is the one with the least angle.

    On the sphere no code wins by being short or long, which keeps more of them in use (Yu et al.,
    "Vector-quantized Image Modeling with Improved VQGAN", 2021).
    """

    def placed(self, latents: Tensor) -> Tensor:
        return functional.normalize(latents, dim=-1)

    def nearest(self, latents: Tensor) -> Tensor:
        return best_codes(latents, self.vectors)
