"""What training adds for codebooks: commitment of latents to codes, and the entropy of their use.

The entropy term is that of MAGVIT-v2 and LlamaGen on soft assignments: each latent sure of its
code, all latents together spread over the codes. It is exact for any codebook: where the scores of
all pairs would be large, they are computed in parts, and once more for the gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from mmgen_vq.codebook import AbstractCodebook

__all__ = ["Assignment", "CodebookLosses", "codebook_losses", "entropy_loss"]

MAX_SCORES = 2**24
"""Scores of latents and codes that are kept for the gradient, 64 MiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CodebookLosses:
    """Weights of the terms."""

    commitment: float
    """Of the mean squared distance of latents from their code vectors."""
    entropy: float
    """Of the entropy term; 0 leaves it out."""
    temperature: float
    """Softness of its assignments, in squared distances."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """Latents of one codebook and what they became."""

    latents: Tensor
    """`[num, dim]`, placed."""
    vectors: Tensor
    """`[num, dim]`, of their codes."""
    codebook: AbstractCodebook


def codebook_losses(
    assignments: Sequence[Assignment], weights: CodebookLosses
) -> dict[str, Tensor]:
    """Return the weighted terms, each a mean over codebooks."""
    share = 1 / len(assignments)
    terms = [functional.mse_loss(item.latents, item.vectors.detach()) for item in assignments]
    losses = {"commitment": torch.stack(terms).sum() * (weights.commitment * share)}
    if weights.entropy:
        terms = [
            entropy_loss(item.latents, item.codebook.vectors, temperature=weights.temperature)
            for item in assignments
        ]
        losses["entropy"] = torch.stack(terms).sum() * (weights.entropy * share)
    return losses


def entropy_loss(latents: Tensor, vectors: Tensor, *, temperature: float) -> Tensor:
    """Return the mean entropy of the assignments less the entropy of the mean assignment, in nats.

    A latent is assigned to a code in proportion to `exp(-distance^2 / temperature)`.

    Args:
        latents: `[num, dim]`.
        vectors: `[size, dim]`; no gradient reaches them.
        temperature: how soft the assignment is.
    """
    # A copy, since the codebook moves on before the gradient is computed.
    vectors = vectors.detach().clone()
    halves = vectors.square().sum(dim=-1) / 2
    rows = max(1, MAX_SCORES // len(vectors))
    total, usage = latents.new_zeros(()), torch.zeros_like(halves)
    for part in torch.split(latents, rows):
        if len(part) == len(latents):
            entropy, used = _assignments(part, vectors, halves, temperature)
        else:
            entropy, used = checkpoint(
                _assignments, part, vectors, halves, temperature, use_reentrant=False
            )
        total, usage = total + entropy, usage + used
    share = usage / len(latents)
    spread: Tensor = torch.special.entr(share).sum()
    return total / len(latents) - spread


def _assignments(
    latents: Tensor, vectors: Tensor, halves: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """Return the summed entropies of the assignments, and their sum for each code, `[size]`."""
    logs = torch.log_softmax((latents @ vectors.T - halves) * (2 / temperature), dim=-1)
    shares = logs.exp()
    return -(shares * logs).sum(), shares.sum(dim=0)
