"""The quantizer against a plain restatement of the paper's formula, and its exact inverse."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from mmgen_fsq.quantizer import FiniteScalarQuantizer

LEVELS = [(7, 5, 5, 5, 5), (8, 5, 5, 5), (3, 6), (4,)]


def reference_digits(latent: list[float], levels: tuple[int, ...]) -> list[int]:
    digits = []
    for value, count in zip(latent, levels, strict=True):
        half = (count - 1) * 0.999 / 2
        offset = 0.5 if count % 2 == 0 else 0.0
        bounded = math.tanh(value + math.atanh(offset / half)) * half - offset
        digits.append(round(bounded) + count // 2)
    return digits


@pytest.mark.parametrize("levels", LEVELS)
def test_codes_follow_the_formula(levels: tuple[int, ...]) -> None:
    quantizer = FiniteScalarQuantizer(levels)
    latents = torch.randn(50, len(levels), generator=torch.Generator().manual_seed(1)) * 2
    codes = quantizer(latents).codes
    for latent, code in zip(latents.tolist(), codes[:, 0].tolist(), strict=True):
        digits = reference_digits(latent, levels)
        expected = sum(digit * math.prod(levels[:axis]) for axis, digit in enumerate(digits))
        assert code == expected


@pytest.mark.parametrize("levels", LEVELS)
def test_vectors_invert_the_numbering(levels: tuple[int, ...]) -> None:
    quantizer = FiniteScalarQuantizer(levels)
    codes = torch.arange(math.prod(levels)).unsqueeze(-1)
    vectors = quantizer.vectors(codes)
    assert torch.equal(quantizer.indices((vectors * (quantizer.levels // 2)).round()), codes)
    assert len(torch.unique(vectors, dim=0)) == math.prod(levels)


@pytest.mark.parametrize("levels", LEVELS)
def test_every_level_can_be_reached(levels: tuple[int, ...]) -> None:
    quantizer = FiniteScalarQuantizer(levels)
    sweep = torch.linspace(-6, 6, 2001).unsqueeze(1).expand(-1, len(levels))
    rounded = quantizer.bound(sweep).round().long() + quantizer.levels // 2
    for axis, count in enumerate(levels):
        assert set(rounded[:, axis].tolist()) == set(range(count))


def test_rounding_passes_gradients_straight_through() -> None:
    quantizer = FiniteScalarQuantizer((5, 5))
    latents = torch.tensor([[0.3, -0.2]], requires_grad=True)
    quantizer(latents).vectors.sum().backward()
    with_bound = torch.tensor([[0.3, -0.2]], requires_grad=True)
    quantizer.normalise(quantizer.bound(with_bound)).sum().backward()  # type: ignore[no-untyped-call]
    assert latents.grad is not None and with_bound.grad is not None
    assert torch.allclose(latents.grad, with_bound.grad)


def test_first_axis_is_fastest() -> None:
    quantizer = FiniteScalarQuantizer((3, 4))
    order = [
        tuple(v)
        for v in (quantizer.vectors(torch.arange(12)[:, None]) * (quantizer.levels // 2)).tolist()
    ]
    expected = [(a, b) for b, a in itertools.product(range(-2, 2), range(-1, 2))]
    assert np.allclose(order, expected)
