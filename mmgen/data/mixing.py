"""Documents that name a picture by some of its codes, while the others are another picture's.

Where a tokenizer's first codes say what is shown, words are to be learned from those. But a model
knows its training pictures by heart after a while, and may tell one by any of its codes, which
says nothing about pictures that it never met. Codes that lead astray take that way from it.
"""

from __future__ import annotations

from collections.abc import Sequence
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


def mixed(samples: Sequence[Sample], mixing: Mixing, seed: str) -> list[Sample]:
    """Return documents of one picture each, in some of which most codes are those of another.

    The other one is any of the samples whose picture has as many ids; it may be the same by
    chance. The choice depends on the seed and on how many samples there are.
    """
    rng = Random(seed)
    places = [np.flatnonzero(sample.flags & IMAGE)[mixing.num_kept :] for sample in samples]
    by_length: dict[int, list[int]] = {}
    for number, place in enumerate(places):
        by_length.setdefault(len(place), []).append(number)
    out = []
    for sample, place in zip(samples, places, strict=True):
        if rng.random() < mixing.share:
            other = rng.choice(by_length[len(place)])
            ids = sample.ids.copy()
            ids[place] = samples[other].ids[places[other]]
            sample = replace(sample, ids=ids)
        out.append(sample)
    return out
