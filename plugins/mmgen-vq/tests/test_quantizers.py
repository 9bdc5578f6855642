"""The three quantizers beside vector-quantize-pytorch with the same code vectors."""

from __future__ import annotations

import copy

import torch
from vector_quantize_pytorch import ResidualVQ, VectorQuantize

from mmgen.autoencoding import AbstractQuantizer
from mmgen_vq.losses import CodebookLosses
from mmgen_vq.product_quantizer import ProductVectorQuantizer, disentangling_loss
from mmgen_vq.residual_quantizer import ResidualVectorQuantizer
from mmgen_vq.vector_quantizer import VectorQuantizer

LOSSES = CodebookLosses(commitment=0.25, entropy=0.0, temperature=1.0)
WITH_ENTROPY = CodebookLosses(commitment=0.25, entropy=0.1, temperature=0.1)


def latents(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def residual(dropout: float = 0.0) -> ResidualVectorQuantizer:
    return ResidualVectorQuantizer((16, 16, 16), 6, decay=0.9, dropout=dropout, losses=LOSSES)


def product() -> ProductVectorQuantizer:
    return ProductVectorQuantizer((16, 32), 3, decay=0.9, disentangling=0.1, losses=WITH_ENTROPY)


def check_inverse(quantizer: AbstractQuantizer, batch: torch.Tensor) -> None:
    quantized = quantizer(batch)
    assert quantized.codes.shape == (*batch.shape[:-1], len(quantizer.codebook_sizes))
    assert quantized.codes.dtype == torch.int64
    torch.testing.assert_close(quantizer.vectors(quantized.codes), quantized.vectors)
    assert not quantized.losses


def test_vectors_and_codes_name_each_other() -> None:
    vector = VectorQuantizer(16, 6, decay=0.9, losses=LOSSES)
    for quantizer in (vector, residual(), product()):
        check_inverse(quantizer.eval(), latents(2, 3, 4, 6))


def test_plain_codes_vectors_and_commitment_are_theirs() -> None:
    theirs = VectorQuantize(
        dim=6, codebook_size=64, use_cosine_sim=True, commitment_weight=0.25, rotation_trick=False
    )
    ours = VectorQuantizer(64, 6, decay=0.8, losses=LOSSES)
    ours.codebook.vectors.copy_(theirs.codebook)
    ours.codebook.mass.fill_(9.0)
    batch = latents(4, 9, 6, seed=1).requires_grad_()
    their_vectors, their_codes, their_loss = theirs.train()(batch)
    (their_gradient,) = torch.autograd.grad(their_vectors.square().sum() + their_loss, batch)
    found = ours.train()(batch)
    total = found.vectors.square().sum() + found.losses["commitment"]
    (gradient,) = torch.autograd.grad(total, batch)
    assert torch.equal(found.codes[..., 0], their_codes)
    torch.testing.assert_close(found.vectors, their_vectors)
    torch.testing.assert_close(found.losses["commitment"], their_loss.squeeze())
    torch.testing.assert_close(gradient, their_gradient, rtol=1e-4, atol=1e-5)


def test_residual_codes_and_vectors_are_theirs() -> None:
    theirs = ResidualVQ(dim=6, num_quantizers=3, codebook_size=16).eval()
    ours = residual().eval()
    for book, table in zip(ours.codebooks, theirs.codebooks, strict=True):
        book.get_buffer("vectors").copy_(table)
    batch = latents(4, 9, 6, seed=2)
    their_vectors, their_codes, _ = theirs(batch)
    found = ours(batch)
    assert torch.equal(found.codes, their_codes)
    torch.testing.assert_close(found.vectors, their_vectors)


def test_product_codes_and_vectors_are_those_of_separate_heads() -> None:
    theirs = VectorQuantize(
        dim=8, heads=2, codebook_dim=4, codebook_size=32, separate_codebook_per_head=True,
        use_cosine_sim=True,
    ).eval()  # fmt: skip
    theirs.project_in = theirs.project_out = torch.nn.Identity()
    ours = ProductVectorQuantizer((32, 32), 4, decay=0.9, disentangling=0.0, losses=LOSSES).eval()
    for book, table in zip(ours.codebooks, theirs.codebook, strict=True):
        book.get_buffer("vectors").copy_(table)
    batch = latents(3, 5, 8, seed=3)
    their_vectors, their_codes, _ = theirs(batch)
    found = ours(batch)
    assert torch.equal(found.codes, their_codes)
    torch.testing.assert_close(found.vectors, their_vectors)


def test_more_residual_codes_come_closer() -> None:
    quantizer = residual().train()
    for step in range(30):
        quantizer(latents(8, 9, 6, seed=step))
    batch = latents(8, 9, 6, seed=99)
    codes = quantizer.eval()(batch).codes
    errors = [
        float((quantizer.vectors(codes[..., :count]) - batch).square().mean())
        for count in (1, 2, 3)
    ]
    assert errors[0] > 1.2 * errors[1] > 1.4 * errors[2]


def test_dropout_uses_the_first_codebooks_alone() -> None:
    quantizer = residual(dropout=0.5)
    for book in quantizer.codebooks:
        book.get_buffer("mass").fill_(9.0)
    batch = latents(64, 4, 6, seed=4)
    before = copy.deepcopy(quantizer)
    found = quantizer.train()(batch)
    tables = [before.vectors(found.codes[..., :count]) for count in (1, 2, 3)]
    counts = [0, 0, 0]
    for picture in range(64):
        vectors = found.vectors[picture]
        fits = [torch.allclose(vectors, table[picture], atol=1e-5) for table in tables]
        assert sum(fits) == 1
        counts[fits.index(True)] += 1
    assert counts[2] > 16 and counts[0] > 4 and counts[1] > 4


def test_dropout_follows_from_the_number_of_the_batch() -> None:
    quantizer, other = residual(dropout=0.5).train(), residual(dropout=0.5).train()
    other.load_state_dict(quantizer.state_dict())
    for step in range(3):
        batch = latents(8, 4, 6, seed=step)
        assert torch.equal(quantizer(batch).vectors, other(batch).vectors)


def test_losses_are_there_in_training_alone() -> None:
    quantizer = product().train()
    batch = latents(4, 9, 6).requires_grad_()
    found = quantizer(batch)
    assert set(found.losses) == {"commitment", "entropy", "disentangling"}
    torch.stack(list(found.losses.values())).sum().backward()  # type: ignore[no-untyped-call]
    assert batch.grad is not None and batch.grad.abs().sum() > 0


def test_disentangling_is_the_squared_cosine() -> None:
    along, across = torch.eye(4)[:1], torch.eye(4)[1:2]
    assert float(disentangling_loss([along, across])) == 0.0
    assert float(disentangling_loss([along, -along])) == 1.0
    assert abs(float(disentangling_loss([along, across, across])) - 1 / 3) < 1e-6
