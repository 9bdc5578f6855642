"""Entropies of soft assignments to all codes of signs, without a table of latents and codes.

A latent is assigned to a code in proportion to `exp(2 * latent . code / temperature)`. For codes
whose numbers are all `scale` or `-scale` this is a product over the bits, each positive with the
probability `sigmoid(4 * scale * number / temperature)`. So the entropy of one assignment is the sum
of its bits' entropies. The mean assignment of a batch, which is no product, needs two factors of
half the bits each and one matrix product. Both are exact for any number of bits.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional

__all__ = [
    "assignment_entropy",
    "bit_logits",
    "code_shares",
    "grouped_mean_entropy",
    "mean_assignment_entropy",
]


def bit_logits(latents: Tensor, *, scale: float, temperature: float) -> Tensor:
    """Return the log odds that each number of `[..., bits]` counts as positive."""
    return latents * (4 * scale / temperature)


def assignment_entropy(logits: Tensor) -> Tensor:
    """Return the mean entropy in nats of the assignments with log odds `[num, bits]`."""
    entropies = functional.softplus(logits) - logits * torch.sigmoid(logits)
    return entropies.sum(dim=-1).mean()


def mean_assignment_entropy(logits: Tensor) -> Tensor:
    """Return the entropy in nats of the mean assignment over all `2 ** bits` codes.

    Memory is one table of the codes and two of latents by the square root of their number.

    Args:
        logits: `[num, bits]`.
    """
    high, low = logits.tensor_split(2, dim=-1)
    shares = code_shares(high).T @ code_shares(low) / len(logits)
    total: Tensor = torch.special.entr(shares).sum()
    return total


def grouped_mean_entropy(logits: Tensor, groups: int) -> Tensor:
    """Return the sum over groups of bits of the entropy of their mean assignment, in nats.

    It is the entropy of the mean assignment if groups were independent, and never less than that.
    """
    parts = rearrange(logits, "num (group bit) -> group num bit", group=groups)
    return torch.stack([mean_assignment_entropy(part) for part in parts]).sum()


def code_shares(logits: Tensor) -> Tensor:
    """Return the assignments `[num, 2 ** bits]` to all codes, the first bit the highest."""
    shares = logits.new_ones(len(logits), 1)
    for bit in logits.unbind(dim=-1):
        either = torch.stack([torch.sigmoid(-bit), torch.sigmoid(bit)], dim=-1)
        shares = rearrange(
            shares.unsqueeze(-1) * either.unsqueeze(1), "num code bit -> num (code bit)"
        )
    return shares
