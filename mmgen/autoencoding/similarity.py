"""Structural similarity of batches, as a loss and as what a network learns to foresee."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["structural_similarity"]

WINDOW = 11
DEVIATION = 1.5
K1, K2 = 0.01, 0.03


def structural_similarity(first: Tensor, second: Tensor) -> Tensor:
    """Return the SSIM of each pair, `[batch]`, averaged over channels (Wang et al., 2004).

    Pictures `[batch, channels, height, width]` in 0..1, sides of 11 or more; the Gaussian window
    of deviation 1.5 lies wholly inside the picture, as in `mmgen evaluate tokenizer`.
    """
    rows = _windows(first.shape[-2], first)
    columns = _windows(first.shape[-1], first).T

    def blurred(planes: Tensor) -> Tensor:
        # The Gaussian is separable, and as two products of matrices it is faster than as a
        # convolution of one channel.
        return rows @ planes @ columns

    mean_first, mean_second = blurred(first), blurred(second)
    variance_first = blurred(first * first) - mean_first**2
    variance_second = blurred(second * second) - mean_second**2
    covariance = blurred(first * second) - mean_first * mean_second
    c1, c2 = K1**2, K2**2
    luminance = (2 * mean_first * mean_second + c1) / (mean_first**2 + mean_second**2 + c1)
    structure = (2 * covariance + c2) / (variance_first + variance_second + c2)
    return (luminance * structure).mean(dim=(1, 2, 3))


def _windows(side: int, like: Tensor) -> Tensor:
    """Return the weights of each place of the window along one side, `[places, side]`."""
    offsets = torch.arange(WINDOW, device=like.device, dtype=like.dtype) - WINDOW // 2
    weights = torch.exp(-(offsets**2) / (2 * DEVIATION**2))
    weights = weights / weights.sum()
    places = side - WINDOW + 1
    table = torch.zeros(places, side, device=like.device, dtype=like.dtype)
    index = torch.arange(places, device=like.device)
    for step, weight in enumerate(weights):
        table[index, index + step] = weight
    return table
