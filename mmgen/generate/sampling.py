"""From scores to ids: guidance, temperature, top-k, top-p, and the noise that makes the choice.

Everything is a function of tensors with one row per request, so that requests with different
settings are sampled together. The noise is a hash of (seed, step, id) computed in integers: what a
request draws does not depend on its neighbours, on the order of arrival, or on the device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import torch

from mmgen.generate.engine import SamplingParams

__all__ = [
    "GuidanceRows",
    "SamplingRows",
    "guide",
    "guide_apart",
    "gumbel_noise",
    "hash_ids",
    "keep_top",
    "sample",
]

# The constants of splitmix64, as the signed integers that torch multiplies with wrap-around.
_STRIDE = 0x9E3779B97F4A7C15 - (1 << 64)
_FIRST = 0xBF58476D1CE4E5B9 - (1 << 64)
_SECOND = 0x94D049BB133111EB - (1 << 64)


@dataclass(frozen=True, slots=True, eq=False)
class SamplingRows:
    """Sampling settings of several requests, `[rows, 1]` each, on the device of the scores."""

    seeds: torch.Tensor
    temperatures: torch.Tensor
    top_k: torch.Tensor | None
    """Ids kept in each row; None when no row limits them."""
    top_p: torch.Tensor | None
    """Probability kept in each row; None when no row limits it."""
    largest_k: int | None
    """How many of the best ids a look at the limits needs; None for all of them."""
    num_candidates: int | None
    """How many of the best ids may be chosen at most; None when some row has no top-k."""

    @classmethod
    def stack(
        cls,
        params: Sequence[SamplingParams],
        seeds: Sequence[int],
        device: torch.device | str = "cpu",
    ) -> Self:
        """Lay the settings of several requests out as columns."""

        def column(values: Sequence[float] | Sequence[int], dtype: torch.dtype) -> torch.Tensor:
            return torch.tensor(values, dtype=dtype, device=device).unsqueeze(1)

        limits = [p.top_k for p in params]
        most = torch.iinfo(torch.int64).max
        has_k = any(k is not None for k in limits)
        has_p = any(p.top_p is not None for p in params)
        unlimited = any(p.top_k is None and p.top_p is not None for p in params)
        return cls(
            seeds=column(seeds, torch.int64),
            temperatures=column([p.temperature for p in params], torch.float32),
            top_k=column([most if k is None else k for k in limits], torch.int64)
            if has_k
            else None,
            top_p=column([1.0 if p.top_p is None else p.top_p for p in params], torch.float64)
            if has_p
            else None,
            largest_k=None if unlimited else max((k for k in limits if k is not None), default=0),
            num_candidates=max((k or 0 for k in limits), default=0) if all(limits) else None,
        )


def guide(
    conditional: torch.Tensor, unconditional: torch.Tensor, scale: torch.Tensor
) -> torch.Tensor:
    """Return `unconditional + scale * (conditional - unconditional)`.

    Args:
        conditional: `[rows, width]`: scores, or hidden states of which scores are a linear image.
        unconditional: likewise.
        scale: `[rows, 1]`.
    """
    return torch.addcmul(unconditional, conditional - unconditional, scale)


def guide_apart(
    conditional: torch.Tensor,
    partial: torch.Tensor,
    unconditional: torch.Tensor,
    partial_scale: torch.Tensor,
    scale: torch.Tensor,
) -> torch.Tensor:
    """Return the same with a scale of its own for a part of the condition.

    `unconditional + partial_scale * (partial - unconditional) + scale * (conditional - partial)`,
    as Brooks et al. (2023, InstructPix2Pix) guide by a picture and by words. Where `partial` is
    `unconditional` it is what `guide` returns, to the bit.

    Args:
        conditional: see `guide`.
        partial: likewise, of the condition without its other parts.
        unconditional: likewise.
        partial_scale: `[rows, 1]`.
        scale: `[rows, 1]`.
    """
    led = guide(partial, unconditional, partial_scale)
    return torch.addcmul(led, conditional - partial, scale)


@dataclass(frozen=True, slots=True, eq=False)
class GuidanceRows:
    """What leads the choice of several requests: rows of a batch beside those of their prompts.

    A request that needs fewer rows than others has its last one in the place of those it lacks,
    which leads nowhere.
    """

    partial_rows: torch.Tensor | None
    """int64 `[requests]`: prompts that keep a part of the condition; None if no request has one."""
    unguided_rows: torch.Tensor
    """int64 `[requests]`."""
    partial_scales: torch.Tensor
    """`[requests, 1]`."""
    scales: torch.Tensor
    """`[requests, 1]`."""

    @classmethod
    def stack(
        cls,
        rows: Sequence[Sequence[int]],
        scales: Sequence[float],
        partial_scales: Sequence[float],
        device: torch.device | str = "cpu",
    ) -> Self | None:
        """Return what leads requests, given the rows of each in the order of its streams.

        None if each has one row, and so nothing is led.
        """
        most = max(map(len, rows))
        if most == 1:
            return None
        second = [numbers[min(1, len(numbers) - 1)] for numbers in rows]
        return cls(
            partial_rows=torch.tensor(second, device=device) if most > 2 else None,
            unguided_rows=torch.tensor([numbers[-1] for numbers in rows], device=device),
            partial_scales=torch.tensor(partial_scales, device=device).unsqueeze(1),
            scales=torch.tensor(scales, device=device).unsqueeze(1),
        )

    @property
    def rows(self) -> tuple[torch.Tensor, ...]:
        """All of the rows, some perhaps twice."""
        if self.partial_rows is None:
            return (self.unguided_rows,)
        return (self.partial_rows, self.unguided_rows)

    def lead(
        self, conditional: torch.Tensor, read: Callable[[torch.Tensor], torch.Tensor]
    ) -> torch.Tensor:
        """Return what was read of the prompts' rows, guided.

        Args:
            conditional: see `guide`.
            read: returns the same of other rows.
        """
        unguided = read(self.unguided_rows)
        if self.partial_rows is None:
            return guide(conditional, unguided, self.scales)
        partial = read(self.partial_rows)
        return guide_apart(conditional, partial, unguided, self.partial_scales, self.scales)


def hash_ids(seeds: torch.Tensor, steps: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Return 64 well-mixed bits for every (seed, step, id), int64 `[rows, ids]`.

    Args:
        seeds: int64 `[rows, 1]`.
        steps: int64 `[rows, 1]`, the place of the id in its span.
        ids: int64 `[ids]`, or `[rows, ids]` where they differ.
    """
    keys = _mix(_mix(seeds * _STRIDE) + steps * _STRIDE)
    return _mix(keys + ids * _STRIDE)


def gumbel_noise(seeds: torch.Tensor, steps: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Return standard Gumbel noise for every (seed, step, id), float32 `[rows, ids]`.

    Args:
        seeds: see `hash_ids`.
        steps: see `hash_ids`.
        ids: see `hash_ids`.
    """
    bits = hash_ids(seeds, steps, ids).bitwise_right_shift_(12).bitwise_and_((1 << 52) - 1)
    # Small shares become large noise, and are exact; the largest stay below 1.
    share = bits.to(torch.float32).add_(0.5).mul_(2.0**-52).clamp_(max=1 - 2.0**-24)
    return share.neg_().log1p_().neg_().log_().neg_()


def keep_top(logits: torch.Tensor, rows: SamplingRows) -> torch.Tensor:
    """Return the scores with -inf where top-k or top-p excludes an id.

    Top-k comes first; top-p then counts the probability, at the row's temperature, of what is
    left. Ids that tie with the last one kept are kept. The best id always is.

    Args:
        logits: float32 `[rows, ids]`.
        rows: the settings of each row.
    """
    if rows.top_k is None and rows.top_p is None:
        return logits
    width = logits.shape[1]
    largest = width if rows.largest_k is None else min(rows.largest_k, width)
    best = logits.topk(largest, dim=1).values
    last = torch.full_like(best[:, :1], -torch.inf)
    if rows.top_k is not None:
        kept = rows.top_k < width
        at_k = best.gather(1, (rows.top_k - 1).clamp(max=largest - 1))
        last = torch.where(kept, at_k, last)
    if rows.top_p is not None:
        cold = rows.temperatures.to(torch.float64).clamp(min=1e-6)
        scaled = (best.to(torch.float64) / cold).masked_fill(best < last, -torch.inf)
        shares = scaled.softmax(dim=1)
        # An id stays while what stands before it has not yet reached the share.
        before = shares.cumsum(dim=1) - shares
        num_kept = (before < rows.top_p).sum(dim=1, keepdim=True).clamp(min=1)
        at_p = best.gather(1, num_kept - 1)
        last = torch.where(rows.top_p < 1.0, torch.maximum(last, at_p), last)
    return logits.masked_fill(logits < last, -torch.inf)


def sample(
    logits: torch.Tensor, ids: torch.Tensor, steps: torch.Tensor, rows: SamplingRows
) -> torch.Tensor:
    """Return one id per row, int64 `[rows]`.

    Temperature multiplies the noise instead of dividing the scores, so that 0 needs no case of
    its own: it takes the best id.

    Args:
        logits: float32 `[rows, ids]`, scores of the allowed ids.
        ids: int64 `[ids]`, which ids those are.
        steps: int64 `[rows, 1]`, the place of the id in its span.
        rows: the settings of each row.
    """
    candidates = rows.num_candidates
    if candidates is not None and 4 * candidates <= logits.shape[1]:
        logits, places = logits.topk(candidates, dim=1)
        ids = ids[places]
    noise = gumbel_noise(rows.seeds, steps, ids)
    best = torch.addcmul(keep_top(logits, rows), noise, rows.temperatures).argmax(dim=1)
    return ids[best] if ids.ndim == 1 else ids.gather(1, best.unsqueeze(1)).squeeze(1)


def _mix(x: torch.Tensor) -> torch.Tensor:
    """Return the finaliser of splitmix64 of int64 tensors; shifts are made logical by masks."""
    x = (x ^ _shift(x, 30)).mul_(_FIRST)
    x = x.bitwise_xor_(_shift(x, 27)).mul_(_SECOND)
    return x.bitwise_xor_(_shift(x, 31))


def _shift(x: torch.Tensor, bits: int) -> torch.Tensor:
    return (x >> bits).bitwise_and_((1 << (64 - bits)) - 1)
