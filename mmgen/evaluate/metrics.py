"""Fidelity of pictures: SSIM and its multi-scale form as papers report them, and of details alone.

Pictures are RGB with values in 0..1; every picture counts equally, whatever its size.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from einops import rearrange, reduce
from torch.nn import functional

from mmgen.testing import psnr
from mmgen.visual_tokenizer import Picture

__all__ = ["detail_psnr", "mean_fidelity", "ms_ssim", "num_scales", "ssim"]

WINDOW = 11
SIGMA = 1.5
K1, K2 = 0.01, 0.03
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""What each scale counts, the finest first (Wang, Simoncelli and Bovik, 2003)."""

_PIXELS_AT_ONCE = 2**17

DETAIL_SHARE = 0.1
"""Share of a picture's pixels that are called its details: where it changes most."""


def ssim(first: Picture, second: Picture) -> float:
    """Return the structural similarity, at most 1, averaged over channels.

    An 11x11 Gaussian window of deviation 1.5 where it lies wholly inside the picture, population
    moments, and the constants 0.01 and 0.03 of the original paper (Wang et al., 2004).
    """
    return float(_ssims([(first, second)])[0])


def num_scales(height: int, width: int) -> int:
    """Return how many of the five scales a picture of this size has room for."""
    scales = 0
    while scales < len(SCALE_WEIGHTS) and min(height, width) >> scales >= WINDOW:
        scales += 1
    return scales


def ms_ssim(first: Picture, second: Picture) -> float:
    """Return the multi-scale structural similarity, averaged over channels.

    A picture too small for five scales is measured at as many as `num_scales` says, their weights
    in proportion; such values compare with one another, not with those of larger pictures.
    """
    _check(first, second)
    height, width, _ = first.shape
    scales = num_scales(height, width)
    if not scales:
        raise ValueError(f"ms_ssim needs sides of {WINDOW} pixels or more, got {height}x{width}")
    x, y = _planes(first, second)
    total = torch.ones(3, dtype=torch.float64)
    for scale in range(scales):
        luminance, structure = _terms(x, y)
        is_last = scale == scales - 1
        value = reduce(luminance * structure if is_last else structure, "c 1 h w -> c", "mean")
        weight = SCALE_WEIGHTS[scale] / sum(SCALE_WEIGHTS[:scales])
        # A negative correlation has no power; it counts as none, as is usual.
        total = total * value.clamp_min(0) ** weight
        x, y = functional.avg_pool2d(x, 2), functional.avg_pool2d(y, 2)
    return float(total.mean())


def detail_psnr(first: Picture, second: Picture) -> float:
    """Return the PSNR in dB over the tenth of the pixels at which the first picture changes most.

    Letters, eyes and outlines are few pixels, so a mean over the whole picture hides their loss.
    """
    _check(first, second)
    light = first.mean(axis=2)
    change = np.hypot(*np.gradient(light))
    kept = np.argsort(-change, axis=None, kind="stable")[: max(1, int(DETAIL_SHARE * change.size))]
    return psnr(first.reshape(-1, 3)[kept], second.reshape(-1, 3)[kept])


def mean_fidelity(originals: Sequence[Picture], others: Sequence[Picture]) -> tuple[float, float]:
    """Return the mean PSNR in dB and the mean SSIM over pairs of pictures."""
    pairs = list(zip(originals, others, strict=True))
    similar = np.empty(len(pairs))
    # Many small pictures at once take a fraction of the time that they take one by one.
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for index, (original, _) in enumerate(pairs):
        by_shape.setdefault(original.shape, []).append(index)
    for shape, indices in by_shape.items():
        at_once = max(1, _PIXELS_AT_ONCE // (shape[0] * shape[1]))
        for start in range(0, len(indices), at_once):
            some = indices[start : start + at_once]
            similar[some] = _ssims([pairs[index] for index in some])
    return float(np.mean([psnr(a, b) for a, b in pairs])), float(np.mean(similar))


def _ssims(pairs: Sequence[tuple[Picture, Picture]]) -> npt.NDArray[np.float64]:
    """Return the structural similarity of each pair, all of one size."""
    for pair in pairs:
        _check(*pair)
    height, width, _ = pairs[0][0].shape
    if min(height, width) < WINDOW:
        raise ValueError(f"ssim needs sides of {WINDOW} pixels or more, got {height}x{width}")
    planes = [_planes(*pair) for pair in pairs]
    luminance, structure = _terms(*(torch.cat(side) for side in zip(*planes, strict=True)))
    values = reduce(luminance * structure, "(n c) 1 h w -> n", "mean", c=3)
    return np.asarray(values.numpy())


def _planes(first: Picture, second: Picture) -> tuple[torch.Tensor, torch.Tensor]:
    """Return both pictures as `[3, 1, height, width]`."""
    pair = torch.from_numpy(np.stack([first, second]).astype(np.float64))
    x, y = rearrange(pair, "pair h w c -> pair c 1 h w")
    return x, y


def _terms(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the comparison of luminance, and that of contrast and structure, of each window."""
    blurred = _blur(torch.cat([x, y, x * x, y * y, x * y]))
    mean_x, mean_y, square_x, square_y, product = rearrange(
        blurred, "(f c) 1 h w -> f c 1 h w", f=5
    )
    var_x = square_x - mean_x**2
    var_y = square_y - mean_y**2
    covariance = product - mean_x * mean_y
    c1, c2 = K1**2, K2**2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return luminance, (2 * covariance + c2) / (var_x + var_y + c2)


@lru_cache(maxsize=16)
def _windows(side: int) -> torch.Tensor:
    """Return the weights of each window along a side, `[side - 10, side]`."""
    offsets = np.arange(WINDOW) - WINDOW // 2
    gaussian = np.exp(-(offsets**2) / (2 * SIGMA**2))
    weights = torch.zeros(side - WINDOW + 1, side, dtype=torch.float64)
    for row, window in enumerate(weights):
        window[row : row + WINDOW] = torch.from_numpy(gaussian / gaussian.sum())
    return weights


def _blur(planes: torch.Tensor) -> torch.Tensor:
    """Weigh each window of `[C, 1, H, W]`; the Gaussian is separable.

    Multiplying by matrices that are mostly zeros is many times faster than a convolution of
    doubles, for which there is no fast code, up to sides of a thousand pixels or so.
    """
    height, width = planes.shape[-2:]
    return _windows(height) @ (planes @ _windows(width).T)


def _check(first: Picture, second: Picture) -> None:
    if first.shape != second.shape or first.ndim != 3 or first.shape[-1] != 3:
        raise ValueError(
            f"expected two pictures [height, width, 3], got {first.shape} and {second.shape}"
        )
