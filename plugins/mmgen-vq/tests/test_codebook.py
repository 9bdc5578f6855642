"""Codebooks follow their latents as vector-quantize-pytorch's do, and lose no code for good."""

from __future__ import annotations

import torch
from torch.nn import functional
from vector_quantize_pytorch import VectorQuantize

from mmgen_vq.codebook import AbstractCodebook, EuclideanCodebook, SphericalCodebook


def latents(num: int, dim: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(num, dim, generator=torch.Generator().manual_seed(seed))


def settled(codebook: AbstractCodebook, vectors: torch.Tensor) -> None:
    """Give every code a vector and as much mass as keeps it alive."""
    codebook.vectors.copy_(vectors)
    codebook.mass.fill_(1.0)


def test_running_means_are_those_of_vector_quantize_pytorch() -> None:
    theirs = VectorQuantize(dim=4, codebook_size=8, decay=0.9, rotation_trick=False).train()
    ours = EuclideanCodebook(8, 4, decay=0.9)
    settled(ours, theirs.codebook)
    for step in range(5):
        batch = latents(8, 4, seed=step)
        codes = ours.nearest(batch)
        assert torch.equal(theirs(batch)[1], codes)
        ours.update(batch, codes)
        # They smooth the counts by 1e-5, we do not.
        torch.testing.assert_close(ours.vectors, theirs.codebook, rtol=1e-3, atol=1e-4)


def test_running_means_on_the_sphere_are_theirs_too() -> None:
    theirs = VectorQuantize(dim=4, codebook_size=8, decay=0.9, use_cosine_sim=True).train()
    ours = SphericalCodebook(8, 4, decay=0.9)
    settled(ours, theirs.codebook)
    batch = latents(8, 4)
    placed = ours.placed(batch)
    codes = ours.nearest(placed)
    assert torch.equal(theirs(batch)[1], codes)
    ours.update(placed, codes)
    torch.testing.assert_close(ours.vectors, theirs.codebook, rtol=1e-3, atol=1e-4)


def test_a_fresh_codebook_comes_into_use_at_once() -> None:
    codebook = EuclideanCodebook(64, 3, decay=0.9)
    # Far from where fresh vectors lie: none but the nearest few would ever be chosen.
    batch = latents(512, 3) + 20
    assert len(torch.unique(codebook.nearest(batch))) < 16
    for _ in range(5):
        codebook.update(batch, codebook.nearest(batch))
    assert len(torch.unique(codebook.nearest(batch))) > 60


def test_dead_codes_move_to_what_is_badly_represented() -> None:
    codebook = EuclideanCodebook(4, 2, decay=0.5)
    settled(codebook, torch.tensor([[0.0, 0.0], [9.0, 9.0], [9.0, 8.0], [8.0, 9.0]]))
    near, far = torch.zeros(40, 2), torch.tensor([[-3.0, 0.0], [0.0, -3.0], [-2.0, -2.0]])
    for _ in range(8):
        batch = torch.cat([near, far])
        codebook.update(batch, codebook.nearest(batch))
    for latent in far:
        assert (codebook.vectors - latent).norm(dim=-1).min() < 1.0


def test_what_is_represented_exactly_revives_nothing() -> None:
    codebook = EuclideanCodebook(4, 2, decay=0.5)
    settled(codebook, torch.eye(4, 2))
    codebook.mass[3] = 0.0
    before = codebook.vectors.clone()
    codebook.update(torch.eye(2), torch.arange(2))
    assert torch.equal(codebook.vectors[2:], before[2:])


def test_the_same_updates_give_the_same_codebook() -> None:
    books = [EuclideanCodebook(32, 3, decay=0.9) for _ in range(2)]
    books[1].load_state_dict(books[0].state_dict())
    for step in range(4):
        batch = latents(50, 3, seed=step)
        for book in books:
            book.update(batch, book.nearest(batch))
    assert torch.equal(books[0].vectors, books[1].vectors)


def test_a_resumed_codebook_goes_on_as_it_would_have() -> None:
    book, other = (EuclideanCodebook(32, 3, decay=0.9) for _ in range(2))
    for step in range(6):
        if step == 3:
            other.load_state_dict(book.state_dict())
        for one in (book, other) if step >= 3 else (book,):
            batch = latents(40, 3, seed=step)
            one.update(batch, one.nearest(batch))
    assert torch.equal(book.vectors, other.vectors)


def test_vectors_on_the_sphere_stay_there() -> None:
    codebook = SphericalCodebook(16, 5, decay=0.8)
    for step in range(5):
        batch = functional.normalize(latents(40, 5, seed=step), dim=-1)
        codebook.update(batch, codebook.nearest(batch))
    torch.testing.assert_close(codebook.vectors.norm(dim=-1), torch.ones(16))
