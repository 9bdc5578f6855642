"""Principal components against numpy's decomposition, and what begins with them."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch.nn import functional

from mmgen.autoencoding import Expectation, FiniteScalarQuantizer, PrincipalComponents
from mmgen.testing import draw_picture

DIM, POSITIONS = 3, 4


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    drawn = np.stack([draw_picture((16, 16), seed=seed) for seed in range(60)])
    return torch.from_numpy(drawn).permute(0, 3, 1, 2).contiguous()


@pytest.fixture(scope="module")
def principal(images: torch.Tensor) -> PrincipalComponents:
    torch.manual_seed(0)
    components = PrincipalComponents(side=16, num_positions=POSITIONS, dim=DIM)
    components.fit(images, FiniteScalarQuantizer((7, 5, 5)))
    return components


def test_components_are_those_of_the_covariance(
    principal: PrincipalComponents, images: torch.Tensor
) -> None:
    small = functional.avg_pool2d(images, 2).flatten(1).double().numpy()
    _, _, found = np.linalg.svd(small - small.mean(axis=0), full_matrices=False)
    overlap = np.abs((principal.components.double().numpy() * found[: DIM * POSITIONS]).sum(axis=1))
    assert overlap[:6].min() > 0.999
    assert overlap.min() > 0.98


def test_latents_are_scaled_for_the_levels(
    principal: PrincipalComponents, images: torch.Tensor
) -> None:
    latents = principal.analysed(images)
    assert latents.shape == (60, POSITIONS, DIM)
    assert torch.allclose(latents.std(dim=0), torch.full((POSITIONS, DIM), 0.8), atol=1e-3)


def test_every_further_position_brings_the_picture_nearer(
    principal: PrincipalComponents, images: torch.Tensor
) -> None:
    vectors = FiniteScalarQuantizer((7, 5, 5))(principal.analysed(images)).vectors
    small = functional.avg_pool2d(images, 2)
    errors = [
        functional.mse_loss(principal.assembled(vectors[:, :length]), small).item()
        for length in range(POSITIONS + 1)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.4 * errors[0]


def test_fewer_pictures_than_components_leave_the_rest_random(images: torch.Tensor) -> None:
    torch.manual_seed(0)
    components = PrincipalComponents(side=16, num_positions=POSITIONS, dim=DIM)
    before = components.components.clone()
    components.fit(images[:6], FiniteScalarQuantizer((7, 5, 5)))
    assert not torch.equal(components.components[:5], before[:5])
    assert torch.equal(components.components[5:], before[5:])


def test_what_is_expected_need_not_be_told(
    principal: PrincipalComponents, images: torch.Tensor
) -> None:
    latents = principal.analysed(images)
    expectation = Expectation(latents, torch.full((POSITIONS, DIM), 3.0))
    assert not principal.analysed(images, expectation).any()
    nothing = principal.assembled(latents[:, :0], expectation)
    strengths = (latents / principal.gains).flatten(1)
    whole = (strengths @ principal.components + principal.mean).reshape(nothing.shape)
    assert torch.allclose(nothing, whole, atol=1e-5)


@pytest.mark.parametrize("length", [0, 1, POSITIONS])
def test_expecting_nothing_changes_nothing(
    principal: PrincipalComponents, images: torch.Tensor, length: int
) -> None:
    latents = principal.analysed(images)
    expectation = Expectation(torch.zeros_like(latents), torch.ones(POSITIONS, DIM))
    assert torch.equal(principal.analysed(images, expectation), latents)
    told = latents[:, :length].clamp(-1, 1)
    expected, plain = principal.assembled(told, expectation), principal.assembled(told)
    assert torch.allclose(expected, plain, atol=1e-5)


def test_the_rest_is_told_sharper_and_heard_softer(
    principal: PrincipalComponents, images: torch.Tensor
) -> None:
    latents = principal.analysed(images)
    expectation = Expectation(latents * 0.5, torch.full((POSITIONS, DIM), 2.0))
    rest = principal.analysed(images, expectation)
    assert torch.allclose(rest, latents, atol=1e-5)
    # Vectors that stand for themselves, so that nothing is lost on the way.
    principal = copy.deepcopy(principal)
    principal.strengths.copy_(1 / principal.gains)
    heard = principal.assembled(rest, expectation)
    assert torch.allclose(heard, principal.assembled(latents), atol=1e-5)


def test_components_know_whether_they_were_found(
    principal: PrincipalComponents,
) -> None:
    assert principal.is_fitted
    assert not PrincipalComponents(side=16, num_positions=POSITIONS, dim=DIM).is_fitted
