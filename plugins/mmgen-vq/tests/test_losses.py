"""The entropy term against its plain formula, in parts and at once."""

from __future__ import annotations

import pytest
import torch

from mmgen_vq import losses
from mmgen_vq.codebook import EuclideanCodebook
from mmgen_vq.losses import Assignment, CodebookLosses, codebook_losses, entropy_loss


def plain_entropy_loss(
    latents: torch.Tensor, vectors: torch.Tensor, temperature: float
) -> torch.Tensor:
    distances = (latents.unsqueeze(1) - vectors).square().sum(dim=-1)
    shares = torch.softmax(-distances / temperature, dim=-1)
    mean = shares.mean(dim=0)
    one = -(shares * (shares + 1e-30).log()).sum(dim=-1).mean()
    result: torch.Tensor = one + (mean * (mean + 1e-30).log()).sum()
    return result


def samples() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(30, 4, generator=generator, requires_grad=True)
    return latents, torch.randn(20, 4, generator=generator)


@pytest.mark.parametrize("temperature", [0.1, 1.0, 10.0])
def test_entropy_is_the_plain_formula(temperature: float) -> None:
    latents, vectors = samples()
    expected = plain_entropy_loss(latents, vectors, temperature)
    found = entropy_loss(latents, vectors, temperature=temperature)
    torch.testing.assert_close(found, expected)


def test_parts_change_neither_value_nor_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    latents, vectors = samples()
    whole = entropy_loss(latents, vectors, temperature=1.0)
    (expected,) = torch.autograd.grad(whole, latents)
    monkeypatch.setattr(losses, "MAX_SCORES", 7 * len(vectors))
    parts = entropy_loss(latents, vectors, temperature=1.0)
    # The codebook moves before the gradient is computed, as it does in training.
    vectors.zero_()
    (gradient,) = torch.autograd.grad(parts, latents)
    torch.testing.assert_close(parts, whole)
    torch.testing.assert_close(gradient, expected)


def test_entropy_prefers_even_use() -> None:
    vectors = torch.eye(4)
    even = entropy_loss(vectors.repeat(5, 1), vectors, temperature=0.1)
    uneven = entropy_loss(vectors[:1].repeat(20, 1), vectors, temperature=0.1)
    assert even < uneven - 1.0


def test_terms_are_weighted_means_over_codebooks() -> None:
    latents, _ = samples()
    book = EuclideanCodebook(20, 4, decay=0.9)
    weights = CodebookLosses(commitment=0.5, entropy=0.1, temperature=1.0)
    item = Assignment(latents, book.lookup(book.nearest(latents.detach())), book)
    one, two = codebook_losses([item], weights), codebook_losses([item, item], weights)
    assert set(one) == {"commitment", "entropy"}
    expected = 0.5 * (item.latents - item.vectors).square().mean()
    torch.testing.assert_close(one["commitment"], expected)
    for name in one:
        torch.testing.assert_close(one[name], two[name])


def test_a_weight_of_zero_leaves_the_entropy_out() -> None:
    latents, vectors = samples()
    book = EuclideanCodebook(20, 4, decay=0.9)
    weights = CodebookLosses(commitment=0.5, entropy=0.0, temperature=1.0)
    item = Assignment(latents, vectors[:1].expand_as(latents), book)
    assert set(codebook_losses([item], weights)) == {"commitment"}
