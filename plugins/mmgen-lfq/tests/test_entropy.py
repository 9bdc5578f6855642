"""The factorised entropies against tables of all latents and all codes."""

from __future__ import annotations

import pytest
import torch

from mmgen_lfq.bits import signs_of_codes
from mmgen_lfq.entropy import (
    assignment_entropy,
    bit_logits,
    code_shares,
    grouped_mean_entropy,
    mean_assignment_entropy,
)

CASES = [(1, 1.0, 1.0), (2, 1.0, 0.5), (5, 0.3, 0.1), (8, 1.0, 3.0)]


def table_of(latents: torch.Tensor, scale: float, temperature: float) -> torch.Tensor:
    """Return the assignments `[num, 2 ** bits]` by distances to every code."""
    bits = latents.shape[-1]
    codes = signs_of_codes(torch.arange(2**bits).unsqueeze(-1), bits).double() * scale
    distances = (latents.unsqueeze(1) - codes).square().sum(dim=-1)
    return torch.softmax(-distances / temperature, dim=-1)


def entropy_of(shares: torch.Tensor) -> torch.Tensor:
    return -(shares * shares.clamp_min(1e-300).log()).sum(dim=-1)


def sample(bits: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(bits)
    return torch.randn(40, bits, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(("bits", "scale", "temperature"), CASES)
def test_entropies_are_those_of_the_whole_table(
    bits: int, scale: float, temperature: float
) -> None:
    latents = sample(bits)
    table = table_of(latents, scale, temperature)
    logits = bit_logits(latents, scale=scale, temperature=temperature)
    torch.testing.assert_close(code_shares(logits), table)
    torch.testing.assert_close(assignment_entropy(logits), entropy_of(table).mean())
    torch.testing.assert_close(mean_assignment_entropy(logits), entropy_of(table.mean(dim=0)))


def test_groups_bound_the_whole() -> None:
    logits = bit_logits(sample(6), scale=1.0, temperature=1.0)
    whole = mean_assignment_entropy(logits)
    assert whole <= grouped_mean_entropy(logits, 2) <= grouped_mean_entropy(logits, 6) + 1e-9
    torch.testing.assert_close(grouped_mean_entropy(logits, 1), whole)


def test_groups_that_are_independent_add_up() -> None:
    halves = [torch.tensor([[a, b] for a in (2.0, -1.0) for b in (0.5, 3.0)]) for _ in range(2)]
    logits = torch.stack([torch.cat([one, two]) for one in halves[0] for two in halves[1]])
    torch.testing.assert_close(grouped_mean_entropy(logits, 2), mean_assignment_entropy(logits))


def test_large_vocabularies_have_a_gradient() -> None:
    latents = torch.randn(16, 20, generator=torch.Generator().manual_seed(0), requires_grad=True)
    entropy = mean_assignment_entropy(bit_logits(latents, scale=1.0, temperature=1.0))
    (gradient,) = torch.autograd.grad(entropy, latents)
    assert 0 < float(entropy.detach()) < 20 * 0.6932
    assert gradient.isfinite().all() and gradient.abs().sum() > 0
