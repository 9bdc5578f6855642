"""Finding the code of a latent, for codebooks of any size.

The scores of all pairs would take gigabytes for large codebooks, and writing them to memory takes
longer than computing them. Here they live in one small block that stays in the processor's cache.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor

__all__ = ["best_codes", "closest_codes"]

SPAN = 64
"""Codes of which only the best score is kept at first."""
BLOCK_SCORES = 2**19
"""Scores computed at once: 2 MiB, which a core's cache holds."""
BLOCK_ROWS = 512
"""Queries of a block, if there are as many."""


@torch.no_grad()
def best_codes(queries: Tensor, table: Tensor) -> Tensor:
    """Return for each query the number of the table's row with the largest inner product.

    The search is complete; the first of equal rows wins. Memory does not grow with the product of
    the two lengths.

    Args:
        queries: `[num_queries, dim]`.
        table: `[num_codes, dim]`.

    Returns:
        `[num_queries]`, int64.
    """
    num_codes = len(table)
    spans = -(-num_codes // SPAN)
    if num_codes % SPAN:
        # Repeating the first row changes nothing: of equal rows the first wins.
        filling = table[:1].expand(spans * SPAN - num_codes, -1)
        table = torch.cat([table, filling])
    members = rearrange(table, "(span code) dim -> span code dim", code=SPAN)
    found = [_best_of_block(part, table, members) for part in torch.split(queries, BLOCK_ROWS)]
    return torch.cat(found)


@torch.no_grad()
def closest_codes(latents: Tensor, vectors: Tensor) -> Tensor:
    """Return for latents `[num, dim]` the codes of the vectors `[size, dim]` with least distance.

    The search is that of `best_codes`.
    """
    # |x - c|^2 is least where x.c - |c|^2 / 2 is most: an inner product with one more number.
    halves = vectors.square().sum(dim=-1, keepdim=True) / -2
    ones = torch.ones_like(latents[:, :1])
    return best_codes(torch.cat([latents, ones], dim=-1), torch.cat([vectors, halves], dim=-1))


def _best_of_block(queries: Tensor, table: Tensor, members: Tensor) -> Tensor:
    if len(queries) == 0:
        return torch.zeros(0, dtype=torch.int64, device=queries.device)
    # The best score of each span first: a plain maximum runs several times as fast as one that
    # keeps the place. Then the place, within the best span alone.
    step = max(SPAN, BLOCK_SCORES // len(queries) // SPAN * SPAN)
    tops = queries.new_empty(len(queries), len(members))
    scores = queries.new_empty(len(queries), min(step, len(table)))
    for start in range(0, len(table), step):
        part = table[start : start + step]
        block = (
            scores if len(part) == scores.shape[1] else scores.new_empty(len(queries), len(part))
        )
        torch.mm(queries, part.T, out=block)
        spans = rearrange(block, "query (span code) -> query span code", code=SPAN)
        torch.amax(spans, dim=-1, out=tops[:, start // SPAN : (start + len(part)) // SPAN])
    best = tops.argmax(dim=-1)
    nearby = torch.einsum("qcd,qd->qc", members[best], queries)
    return best * SPAN + nearby.argmax(dim=-1)
