"""Documents that name a picture by some of its codes, while the others are another picture's.

Where a tokenizer's first codes say what is shown, words are to be learned from those. But a model
knows its training pictures by heart after a while, and may tell one by any of its codes, which
says nothing about pictures that it never met. Codes that lead astray take that way from it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random

import numpy as np

from mmgen.data.shards import IMAGE, Sample
from mmgen.errors import SettingsError

__all__ = ["Mixing", "mixed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixing:
    """How many documents are mixed, and what of each stays."""

    share: float = 0.0
    """Of the documents, 0..1."""
    num_kept: int = 1
    """Codes of a picture, the first ones, that stay its own."""

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1 or self.num_kept < 1:
            raise SettingsError(
                f"share must lie in 0..1 and num_kept be positive, got {self.share} and "
                f"{self.num_kept}"
            )


def mixed(
    samples: Sequence[Sample], mixing: Mixing, seed: str, *, takes_part: Callable[[Sample], bool]
) -> list[Sample]:
    """Return samples in some of which most codes of the picture are those of another.

    The other one is any that takes part and whose picture has as many ids; it may be the same by
    chance. The choice depends on the seed and on which samples take part.

    Args:
        samples: documents, in any order.
        mixing: how many are mixed.
        seed: of the choice.
        takes_part: whether a sample, which then has one picture, may be mixed.
    """
    out = list(samples)
    if not mixing.share:
        return out
    rng = Random(seed)
    places = {
        number: np.flatnonzero(sample.flags & IMAGE)[mixing.num_kept :]
        for number, sample in enumerate(samples)
        if takes_part(sample)
    }
    by_length: dict[int, list[int]] = {}
    for number, place in places.items():
        by_length.setdefault(len(place), []).append(number)
    for number, place in places.items():
        if rng.random() < mixing.share:
            other = rng.choice(by_length[len(place)])
            ids = samples[number].ids.copy()
            ids[place] = samples[other].ids[places[other]]
            out[number] = replace(samples[number], ids=ids)
    return out
