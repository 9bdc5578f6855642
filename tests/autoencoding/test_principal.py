"""Principal components against numpy's decomposition, and what begins with them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from mmgen.autoencoding import FiniteScalarQuantizer, PrincipalComponents
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
