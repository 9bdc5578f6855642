"""Fidelity of pictures: SSIM as papers report it, and means of it and PSNR over many pictures.

Pictures are RGB with values in 0..1; every picture counts equally, whatever its size.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from einops import rearrange, reduce
from torch.nn import functional

from mmgen.testing import psnr
from mmgen.visual_tokenizer import Picture

__all__ = ["mean_fidelity", "ssim"]

WINDOW = 11
SIGMA = 1.5
K1, K2 = 0.01, 0.03


def ssim(first: Picture, second: Picture) -> float:
    """Return the structural similarity, at most 1, averaged over channels.

    An 11x11 Gaussian window of deviation 1.5 where it lies wholly inside the picture, population
    moments, and the constants 0.01 and 0.03 of the original paper (Wang et al., 2004).
    """
    _check(first, second)
    height, width, _ = first.shape
    if min(height, width) < WINDOW:
        raise ValueError(f"ssim needs sides of {WINDOW} pixels or more, got {height}x{width}")
    pair = torch.from_numpy(np.stack([first, second]).astype(np.float64))
    x, y = rearrange(pair, "pair h w c -> pair c 1 h w")
    mean_x, mean_y = _blur(x), _blur(y)
    var_x = _blur(x * x) - mean_x**2
    var_y = _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    c1, c2 = K1**2, K2**2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (var_x + var_y + c2)
    return float(reduce(luminance * structure, "c 1 h w -> ", "mean"))


def mean_fidelity(originals: Sequence[Picture], others: Sequence[Picture]) -> tuple[float, float]:
    """Return the mean PSNR in dB and the mean SSIM over pairs of pictures."""
    pairs = list(zip(originals, others, strict=True))
    return (
        float(np.mean([psnr(a, b) for a, b in pairs])),
        float(np.mean([ssim(a, b) for a, b in pairs])),
    )


def _gaussian() -> npt.NDArray[np.float64]:
    offsets = np.arange(WINDOW) - WINDOW // 2
    weights = np.exp(-(offsets**2) / (2 * SIGMA**2))
    return np.asarray(weights / weights.sum(), dtype=np.float64)


def _blur(planes: torch.Tensor) -> torch.Tensor:
    """Weigh each window of `[C, 1, H, W]`; the Gaussian is separable."""
    weights = torch.from_numpy(_gaussian())
    planes = functional.conv2d(planes, rearrange(weights, "k -> 1 1 k 1"))
    return functional.conv2d(planes, rearrange(weights, "k -> 1 1 1 k"))


def _check(first: Picture, second: Picture) -> None:
    if first.shape != second.shape or first.ndim != 3 or first.shape[-1] != 3:
        raise ValueError(
            f"expected two pictures [height, width, 3], got {first.shape} and {second.shape}"
        )
