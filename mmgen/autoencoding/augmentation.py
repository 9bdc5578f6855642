"""Random changes of pictures after which they still show the same thing."""

from __future__ import annotations

import torch
from einops import rearrange, reduce
from torch import Tensor
from torch.nn import functional

__all__ = ["augmented"]


def augmented(batch: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Return pictures `[B, 3, H, W]` moved, scaled, turned, softened and recoloured a little.

    Nothing is mirrored, since left and right make concepts. Some pictures lose their colours or
    have them permuted, so that a shape counts in a style that was not seen with it. The generator
    decides, or without one torch's own.
    """
    num = len(batch)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(num, generator=generator)

    angle, scale = uniform(-0.15, 0.15), uniform(0.85, 1.15)
    cosine, sine = torch.cos(angle) * scale, torch.sin(angle) * scale
    rows = [cosine, -sine, uniform(-0.12, 0.12), sine, cosine, uniform(-0.12, 0.12)]
    theta = rearrange(torch.stack(rows), "(r c) b -> b r c", r=2)
    grid = functional.affine_grid(theta, list(batch.shape), align_corners=False)
    batch = functional.grid_sample(batch, grid, padding_mode="border", align_corners=False)

    gray = reduce(batch, "b c h w -> b 1 h w", "mean").expand_as(batch)
    fate = rearrange(uniform(0, 1), "b -> b 1 1 1")
    order = torch.randperm(3, generator=generator)
    batch = torch.where(fate < 0.15, gray, batch)
    batch = torch.where(fate > 0.9, batch[:, order], batch)
    contrast = rearrange(uniform(0.7, 1.2), "b -> b 1 1 1")
    soft = functional.avg_pool2d(batch, 3, stride=1, padding=1, count_include_pad=False)
    batch = torch.where(rearrange(uniform(0, 1), "b -> b 1 1 1") < 0.25, soft, batch)
    return (1 - (1 - batch) * contrast).clamp(0, 1).contiguous(memory_format=torch.channels_last)
