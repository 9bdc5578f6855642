"""Cross-entropy of the decoder, computed only where a target counts, and split by what it is.

A target competes with the ids that may stand in its place, not with all (see `alternatives`).

Logits are the largest tensor of a step, so they exist a few hundred positions at a time: each
piece yields its loss and its gradients at once and is then forgotten.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mmgen.train.alternatives import Alternatives

__all__ = ["IGNORE_INDEX", "IMAGE", "MARK", "TEXT", "LossSums", "decoder_loss"]

IGNORE_INDEX = -100
"""A target that does not count."""

TEXT, IMAGE, MARK = 0, 1, 2
"""Kinds of targets: words, ids of pictures, and the marks between them."""

POSITIONS_AT_ONCE = 512
"""Positions whose logits exist at one time."""


@dataclass(frozen=True, slots=True, eq=False)
class LossSums:
    """Losses of one batch summed by kind of target, in nats."""

    nats: Tensor
    """`[3]`, by kind, unweighted."""
    counts: Tensor
    """`[3]`, targets of each kind."""
    num_logits: int = 0
    """Logits that were looked at: the targets, each times the size of its group."""


class _LinearCrossEntropy(torch.autograd.Function):
    """Weighted cross-entropy of `hidden @ weight.T`, with gradients made on the way forward."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, scales: Tensor, z_loss: float
    ) -> tuple[Tensor, Tensor]:
        needs_grad = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        table = weight.to(hidden.dtype)
        nats = torch.empty(len(targets), dtype=torch.float32, device=hidden.device)
        loss = torch.zeros((), dtype=torch.float32, device=hidden.device)
        grad_hidden = torch.empty_like(hidden) if needs_grad else None
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if needs_grad else None
        for start in range(0, len(targets), POSITIONS_AT_ONCE):
            piece = slice(start, start + POSITIONS_AT_ONCE)
            logits = (hidden[piece] @ table.T).float()
            chosen = targets[piece, None]
            normaliser = logits.logsumexp(dim=1, keepdim=True)
            nats[piece] = (normaliser - logits.gather(1, chosen)).squeeze(1)
            scale = scales[piece]
            penalty = z_loss * normaliser.squeeze(1).square()
            loss += (scale * (nats[piece] + penalty)).sum()
            if grad_hidden is None or grad_weight is None:
                continue
            grad = logits.sub_(normaliser).exp_()
            if z_loss:
                grad *= 1 + 2 * z_loss * normaliser
            grad.scatter_add_(1, chosen, torch.full_like(normaliser, -1.0))
            grad *= scale[:, None]
            grad = grad.to(hidden.dtype)
            grad_hidden[piece] = grad @ table
            if grad.dtype == torch.float32:
                grad_weight.addmm_(grad.T, hidden[piece])
            else:
                grad_weight += grad.T @ hidden[piece]
        ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.mark_non_differentiable(nats)
        return loss, nats

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_weight = ctx.saved_tensors
        scale = grads[0]
        return grad_hidden * scale.to(grad_hidden.dtype), grad_weight * scale, None, None, None


def decoder_loss(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    modality: Tensor,
    *,
    alternatives: Alternatives,
    num_text_ids: int,
    normaliser: float,
    image_weight: float = 1.0,
    z_loss: float = 0.0,
) -> tuple[Tensor, LossSums]:
    """Return the loss to minimise and the sums to report.

    Args:
        hidden: `[batch, length, hidden_size]`.
        weight: the output table, `[vocab_size, hidden_size]`.
        targets: `[batch, length]`, `IGNORE_INDEX` where nothing counts.
        modality: `[batch, length]`, 1 where the target belongs to a picture.
        alternatives: which ids each target competes with.
        num_text_ids: ids below it are words.
        normaliser: what the weighted sum is divided by: the total weight of the step's targets.
        image_weight: weight of a picture's targets.
        z_loss: weight of the squared log-normaliser.
    """
    flat = targets.flatten()
    index = (flat != IGNORE_INDEX).nonzero().squeeze(1)
    groups = alternatives.group_of[flat[index]]
    # Stable, so that targets of one group stay in order and sums come out the same every time.
    order = groups.argsort(stable=True)
    index = index[order]
    chosen = flat[index]
    kinds = target_kinds(chosen, modality.flatten()[index], num_text_ids)
    scales = torch.where(kinds == IMAGE, image_weight, 1.0) / normaliser
    picked = hidden.flatten(0, 1).index_select(0, index)
    places = alternatives.place_of[chosen]
    counts = groups.bincount(minlength=len(alternatives.groups)).tolist()
    terms, nats, start = [], [], 0
    for ids, count in zip(alternatives.groups, counts, strict=True):
        part = slice(start, start + count)
        start += count
        if not count:
            continue
        table = weight[ids] if isinstance(ids, slice) else weight.index_select(0, ids)
        term, part_nats = _LinearCrossEntropy.apply(  # type: ignore[no-untyped-call]
            picked[part], table, places[part], scales[part], z_loss
        )
        terms.append(term)
        nats.append(part_nats)
    sums = torch.zeros(3, device=weight.device)
    if nats:
        sums.index_add_(0, kinds, torch.cat(nats).detach())
    else:
        # Zero, but a function of both, so that a batch without targets has gradients as well.
        terms.append((picked.sum() + weight[:0].sum()).float())
    loss = torch.stack(terms).sum()
    num_logits = sum(a * b for a, b in zip(counts, alternatives.sizes, strict=True))
    return loss, LossSums(sums, kinds.bincount(minlength=3), num_logits)


def target_kinds(targets: Tensor, modality: Tensor, num_text_ids: int) -> Tensor:
    """Return the kind of each target: `TEXT`, `IMAGE` or `MARK`."""
    words = torch.where(targets < num_text_ids, TEXT, MARK)
    return torch.where(modality == 1, IMAGE, words)
