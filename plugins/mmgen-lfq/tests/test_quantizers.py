"""The three quantizers beside the LFQ of vector-quantize-pytorch."""

from __future__ import annotations

import pytest
import torch
from vector_quantize_pytorch import LFQ

from mmgen_lfq.binary_spherical import BinarySphericalQuantizer
from mmgen_lfq.grouped import GroupedQuantizer
from mmgen_lfq.lookup_free import LookupFreeQuantizer
from mmgen_lfq.sign_quantizer import AbstractSignQuantizer, SignLosses

KINDS: list[type[AbstractSignQuantizer]] = [
    LookupFreeQuantizer,
    BinarySphericalQuantizer,
    GroupedQuantizer,
]


def latents(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def losses(temperature: float) -> SignLosses:
    return SignLosses(commitment=0.25, entropy=0.1, diversity=1.5, temperature=temperature)


def theirs(bits: int, codebooks: int, scale: float, *, spherical: bool) -> LFQ:
    return LFQ(
        dim=bits * codebooks,
        codebook_size=2**bits,
        num_codebooks=codebooks,
        entropy_loss_weight=0.1,
        commitment_loss_weight=0.25,
        diversity_gamma=1.5,
        codebook_scale=scale,
        spherical=spherical,
    ).train()


def check_parity(ours: AbstractSignQuantizer, other: LFQ, inverse: float, groups: int) -> None:
    batch = latents(6, 50, ours.dim).requires_grad_()
    their_vectors, their_codes, their_loss = other(batch, inv_temperature=inverse)
    (their_gradient,) = torch.autograd.grad(their_vectors.square().sum() + their_loss, batch)
    found = ours.train()(batch)
    # Their loss is a mean over codebooks where ours is a sum.
    loss = found.losses["entropy"] / groups + found.losses["commitment"]
    (gradient,) = torch.autograd.grad(found.vectors.square().sum() + loss, batch)
    assert torch.equal(found.codes, their_codes.reshape(found.codes.shape))
    torch.testing.assert_close(found.vectors, their_vectors)
    # They count no probability below 1e-5 as smaller than that.
    torch.testing.assert_close(loss, their_loss, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(gradient, their_gradient, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("inverse", [0.3, 1.0])
def test_lookup_free_codes_vectors_and_losses_are_theirs(inverse: float) -> None:
    ours = LookupFreeQuantizer(groups=1, group_bits=8, losses=losses(1 / inverse))
    check_parity(ours, theirs(8, 1, 1.0, spherical=False), inverse, 1)


@pytest.mark.parametrize("inverse", [1.0, 10.0])
def test_spherical_codes_vectors_and_losses_are_theirs(inverse: float) -> None:
    ours = BinarySphericalQuantizer(groups=1, group_bits=8, losses=losses(1 / inverse))
    check_parity(ours, theirs(8, 1, 1.0, spherical=True), inverse, 1)


def test_grouped_codes_vectors_and_losses_are_theirs() -> None:
    ours = GroupedQuantizer(groups=3, group_bits=6, losses=losses(1.0))
    check_parity(ours, theirs(6, 3, 1.0, spherical=False), 1.0, 3)


def test_splitting_a_code_changes_no_loss_of_lookup_free() -> None:
    batch = latents(4, 30, 12)
    whole = LookupFreeQuantizer(groups=1, group_bits=12, losses=losses(1.0)).train()(batch)
    split = LookupFreeQuantizer(groups=2, group_bits=6, losses=losses(1.0)).train()(batch)
    torch.testing.assert_close(whole.losses, split.losses)
    assert torch.equal(whole.vectors, split.vectors)
    combined = split.codes[..., 0] * 64 + split.codes[..., 1]
    assert torch.equal(combined, whole.codes[..., 0])


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_and_codes_name_each_other(kind: type[AbstractSignQuantizer]) -> None:
    quantizer = kind(groups=3, group_bits=5, losses=losses(1.0)).eval()
    batch = latents(2, 3, 4, 15)
    found = quantizer(batch)
    assert found.codes.shape == (2, 3, 4, 3) and not found.losses
    torch.testing.assert_close(quantizer.vectors(found.codes), found.vectors)
    table = quantizer.code_vectors(1)
    assert table.shape == (32, 5) and len(torch.unique(table, dim=0)) == 32
    torch.testing.assert_close(
        table[found.codes[..., 1]], quantizer.vectors(found.codes)[..., 5:10]
    )


def test_spherical_vectors_have_length_one() -> None:
    quantizer = BinarySphericalQuantizer(groups=2, group_bits=9, losses=losses(1.0))
    lengths = quantizer(latents(10, 18)).vectors.norm(dim=-1)
    torch.testing.assert_close(lengths, torch.ones(10))
