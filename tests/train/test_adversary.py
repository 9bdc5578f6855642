"""A critic learns to tell two kinds of pictures apart, and pulls as hard as the pixels do."""

from __future__ import annotations

import pytest
import torch

from mmgen.train.adversary import MAX_BALANCE, Adversary, PatchCritic


def noise(seed: int) -> torch.Tensor:
    return torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def test_the_critic_learns_what_is_real() -> None:
    adversary = Adversary(width=8, lr=1e-3, seed=0)
    smooth = torch.full((4, 3, 16, 16), 0.5)
    losses = [adversary.learn(noise(step), smooth) for step in range(40)]
    assert losses[0] == pytest.approx(1.0, abs=0.3)
    assert losses[-1] < 0.3
    assert adversary.critic(noise(99)).mean() > adversary.critic(smooth).mean() + 1


def test_the_pull_is_as_strong_as_the_loss_at_the_pixels() -> None:
    adversary = Adversary(width=8, lr=1e-3, seed=0)
    weight = torch.full((4, 3, 16, 16), 0.5, requires_grad=True)
    drawn = weight * 1.0
    loss = (drawn - noise(0)).square().mean() * 0.01
    (strong,) = torch.autograd.grad(loss, weight, retain_graph=True)
    (pulled,) = torch.autograd.grad(adversary.pull(drawn, loss), weight)
    assert pulled.norm().item() == pytest.approx(strong.norm().item(), rel=1e-4)
    assert all(parameter.grad is None for parameter in adversary.critic.parameters())
    assert all(parameter.requires_grad for parameter in adversary.critic.parameters())


def test_the_pull_has_a_limit() -> None:
    adversary = Adversary(width=8, lr=1e-3, seed=0)
    drawn = torch.full((4, 3, 16, 16), 0.5, requires_grad=True)
    plain = -adversary.critic(drawn).mean()
    pulled = adversary.pull(drawn, (drawn - noise(0)).square().sum() * 1000)
    assert pulled.item() == pytest.approx(plain.item() * MAX_BALANCE, rel=1e-5)


def test_there_is_a_score_for_every_eight_pixels() -> None:
    assert PatchCritic(4)(noise(1)).shape == (4, 1, 2, 2)
