"""Fidelity against independent, slower spellings of the same formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mmgen.evaluate.metrics import mean_fidelity, ssim
from mmgen.visual_tokenizer import Picture


def noise(seed: int, height: int = 15, width: int = 18) -> Picture:
    return np.random.default_rng(seed).random((height, width, 3), dtype=np.float32)


def ssim_by_loops(first: Picture, second: Picture) -> float:
    """The formula of the paper window by window, with weighted moments about the mean."""
    kernel = [[math.exp(-(i * i + j * j) / 4.5) for j in range(-5, 6)] for i in range(-5, 6)]
    weights = np.array(kernel) / np.sum(kernel)
    height, width, channels = first.shape
    values = []
    for channel in range(channels):
        for top in range(height - 10):
            for left in range(width - 10):
                x = first[top : top + 11, left : left + 11, channel].astype(float)
                y = second[top : top + 11, left : left + 11, channel].astype(float)
                mean_x, mean_y = (weights * x).sum(), (weights * y).sum()
                var_x = (weights * (x - mean_x) ** 2).sum()
                var_y = (weights * (y - mean_y) ** 2).sum()
                covariance = (weights * (x - mean_x) * (y - mean_y)).sum()
                values.append(
                    (2 * mean_x * mean_y + 1e-4)
                    * (2 * covariance + 9e-4)
                    / ((mean_x**2 + mean_y**2 + 1e-4) * (var_x + var_y + 9e-4))
                )
    return float(np.mean(values))


@pytest.mark.parametrize("weight", [0.0, 0.1, 0.5, 1.0])
def test_ssim_equals_the_formula_window_by_window(weight: float) -> None:
    first = noise(0)
    second = ((1 - weight) * first + weight * noise(1)).astype(np.float32)
    assert ssim(first, second) == pytest.approx(ssim_by_loops(first, second), abs=1e-9)


def test_ssim_of_equal_pictures_is_one_and_of_negatives_is_below_zero() -> None:
    picture = noise(2)
    assert ssim(picture, picture) == pytest.approx(1.0, abs=1e-12)
    assert ssim(picture, (1 - picture).astype(np.float32)) < 0


def test_ssim_refuses_pictures_smaller_than_its_window() -> None:
    with pytest.raises(ValueError, match="11 pixels or more, got 10x18"):
        ssim(noise(0, height=10), noise(1, height=10))


def test_pictures_of_two_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="two pictures"):
        ssim(noise(0), noise(0, height=16))


def test_mean_fidelity_averages_over_pictures() -> None:
    zero = np.zeros((11, 11, 3), dtype=np.float32)
    tenth, third = zero + np.float32(0.1), zero + np.float32(10**-1.5)
    mean_psnr, mean_ssim = mean_fidelity([zero, zero], [tenth, third])
    assert mean_psnr == pytest.approx(25.0, abs=1e-4)
    assert mean_ssim == pytest.approx((ssim(zero, tenth) + ssim(zero, third)) / 2)
