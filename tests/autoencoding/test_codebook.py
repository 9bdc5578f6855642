"""The codebook that the optimizer moves: nearest codes, and none that stays unused."""

from __future__ import annotations

import torch
from vector_quantize_pytorch import VectorQuantize

from mmgen.autoencoding.codebook import TrainedCodebook


def codebook(size: int = 24, dim: int = 3, *, deviation: float = 1.0) -> TrainedCodebook:
    torch.manual_seed(2)
    return TrainedCodebook(size, dim, deviation=deviation)


def latents(num: int = 400, dim: int = 3) -> torch.Tensor:
    return torch.randn(num, dim, generator=torch.Generator().manual_seed(5))


def test_codes_are_those_of_vector_quantize_pytorch() -> None:
    book = codebook()
    reference = VectorQuantize(dim=3, codebook_size=24, kmeans_init=False).eval()
    with torch.no_grad():
        reference._codebook.embed.copy_(book.vectors.unsqueeze(0))
        vectors, codes, _ = reference(latents().unsqueeze(0))
    assert torch.equal(book.nearest(latents()), codes[0])
    assert torch.allclose(book.lookup(codes), vectors, atol=1e-6)


def test_vectors_begin_with_the_deviation_of_latents() -> None:
    assert abs(codebook(4000, 2, deviation=0.5).vectors.std().item() - 0.5) < 0.02


def test_codes_without_use_are_drawn_to_latents() -> None:
    book = codebook()
    with torch.no_grad():
        book.table[:12] *= 3
    far = latents()
    assert len(torch.unique(book.nearest(far))) < 18
    optimizer = torch.optim.Adam(book.parameters(), lr=1e-2)
    for _ in range(150):
        loss = book.revival(far, book.nearest(far))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert len(torch.unique(book.nearest(far))) >= 22


def test_revival_leaves_codes_in_use_alone() -> None:
    book = codebook()
    far = latents()
    codes = book.nearest(far)
    book.revival(far, codes).backward()  # type: ignore[no-untyped-call]
    assert book.table.grad is not None
    used = torch.unique(codes)
    assert not book.table.grad[used].any()
    idle = torch.ones(24, dtype=torch.bool)
    idle[used] = False
    assert idle.any() and book.table.grad[idle].any()
