"""Which ids a target competes with in the loss: those that the grammar lets stand in its place.

Where a code is to come, the grammar allows the codes of one codebook and nothing else, and
elsewhere no code at all. No engine looks at other logits there, so a decoder that learns them
wastes its strength, and a training step its time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from mmgen.vocabulary import Vocabulary

__all__ = ["Alternatives"]


@dataclass(frozen=True, slots=True, eq=False)
class Alternatives:
    """The used ids of a vocabulary in groups, of which exactly one may stand in each place."""

    groups: tuple[slice | Tensor, ...]
    """The ids of each group: a slice where they are neighbours."""
    sizes: tuple[int, ...]
    """How many those are."""
    group_of: Tensor
    """`[vocab_size]`: the group of each id, -1 for rows that mean nothing."""
    place_of: Tensor
    """`[vocab_size]`: the place of each id in its group."""

    @classmethod
    def of(cls, vocabulary: Vocabulary, device: torch.device | str = "cpu") -> Self:
        """Return words and marks as one group, then each tokenizer's shapes and codebooks."""
        spelled = [
            ids
            for ranges in vocabulary.ranges
            for ids in (ranges.shape_ids, *ranges.code_ids)
            if len(ids)
        ]
        inside = {id_ for ids in spelled for id_ in ids}
        others = [id_ for id_ in range(vocabulary.num_used_ids) if id_ not in inside]
        group_of = torch.full((vocabulary.size,), -1, dtype=torch.int64)
        place_of = torch.zeros(vocabulary.size, dtype=torch.int64)
        members = [torch.tensor(ids, dtype=torch.int64) for ids in (others, *map(list, spelled))]
        for number, ids in enumerate(members):
            group_of[ids] = number
            place_of[ids] = torch.arange(len(ids))
        return cls(
            groups=tuple(_as_slice(ids, device) for ids in members),
            sizes=tuple(map(len, members)),
            group_of=group_of.to(device),
            place_of=place_of.to(device),
        )


def _as_slice(ids: Tensor, device: torch.device | str) -> slice | Tensor:
    first, last = int(ids[0]), int(ids[-1])
    return slice(first, last + 1) if last - first + 1 == len(ids) else ids.to(device)
