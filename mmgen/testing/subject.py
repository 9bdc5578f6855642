"""The tokenizer under test, with what every check needs: pictures, codes, a saved copy.

A check is a function from a `Subject` to a sentence on what it found; it raises `Fault` where a
promise is broken and `NotApplicable` where none was made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mmgen.testing.pictures import draw_picture
from mmgen.testing.report import Speed
from mmgen.visual_tokenizer import (
    AbstractVisualTokenizer,
    Codes,
    Layout,
    Ordered,
    Picture,
    VisualTokenizerSpec,
)

__all__ = [
    "Check",
    "Fault",
    "NotApplicable",
    "Subject",
    "check_picture",
    "check_same_codes",
    "check_same_pictures",
    "decode",
    "encode",
]

MAX_LAYOUTS = 12
"""Layouts that are tried of a tokenizer with many."""

TOLERATED_CODES = 0.005
"""Share of codes that may differ where sums are taken in another order."""

TOLERATED_PIXEL = 1e-3
"""Difference of a pixel that is tolerated where sums are taken in another order."""

CAPTION = "a drawing of coloured shapes"


class Fault(Exception):
    """A promise of the contract is broken; the message says what was found."""


class NotApplicable(Exception):
    """The tokenizer does not promise this; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One named check."""

    name: str
    """What users write to choose it."""
    tried: str
    """What it does."""
    remedy: str
    """What an author does when it fails."""
    run: Callable[[Subject], str]
    """Returns what was found."""


def encode(tokenizer: AbstractVisualTokenizer, pictures: Sequence[Picture]) -> list[Codes]:
    """Encode, with captions for a tokenizer that reads them."""
    if "encode" in tokenizer.spec.captions_used:
        return tokenizer.encode(pictures, captions=[CAPTION] * len(pictures))
    return tokenizer.encode(pictures)


def decode(
    tokenizer: AbstractVisualTokenizer, codes: Sequence[Codes], *, seed: int = 0
) -> list[Picture]:
    """Decode, with captions and a seed for a tokenizer that takes them."""
    captions = [CAPTION] * len(codes) if "decode" in tokenizer.spec.captions_used else None
    return tokenizer.decode(
        codes, seed=seed if tokenizer.spec.stochastic else None, captions=captions
    )


class Subject:
    """A tokenizer under test."""

    def __init__(
        self, tokenizer: AbstractVisualTokenizer, given: Sequence[Picture], directory: Path
    ) -> None:
        self.tokenizer = tokenizer
        self.spec: VisualTokenizerSpec = tokenizer.spec
        self.directory = directory
        self.speeds: tuple[Speed, ...] = ()
        self._given = tuple(given)

    @cached_property
    def layouts(self) -> tuple[Layout, ...]:
        """The layouts, or of many the default, the smallest, the largest and some between."""
        layouts = self.spec.layouts
        if len(layouts) <= MAX_LAYOUTS:
            return layouts
        ordered = sorted(layouts, key=lambda layout: layout.num_positions)
        picked = np.linspace(0, len(ordered) - 1, MAX_LAYOUTS - 1).round().astype(int)
        return tuple(dict.fromkeys([layouts[0], *(ordered[index] for index in picked)]))

    @cached_property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """The picture sizes of `layouts`, the default first."""
        return tuple(dict.fromkeys(self.spec.pixels.size_of(layout) for layout in self.layouts))

    @cached_property
    def pictures(self) -> tuple[Picture, ...]:
        """Pictures of the kind that the promised PSNR is about: given, or drawn at one size."""
        drawn = (draw_picture(self.sizes[0], seed=seed) for seed in range(6))
        return self._given or tuple(drawn)

    @cached_property
    def mixed(self) -> tuple[Picture, ...]:
        """A few pictures of several sizes in no order."""
        sizes = (self.sizes[0], self.sizes[-1], *self.sizes[1:4], self.sizes[0])
        drawn = tuple(draw_picture(size, seed=10 + seed) for seed, size in enumerate(sizes))
        return (*self.pictures[:2], *drawn)

    @cached_property
    def mixed_codes(self) -> list[Codes]:
        """The codes of `mixed`."""
        return encode(self.tokenizer, self.mixed)

    def random_codes(self, layout: Layout, *, seed: int = 0) -> Codes:
        """Return legal codes that stand for nothing in particular."""
        random = np.random.default_rng(seed)
        columns = [
            random.integers(0, size, layout.num_positions) for size in self.spec.codebook_sizes
        ]
        return Codes(np.stack(columns, axis=1), layout)

    @cached_property
    def saved(self) -> Path | None:
        """A directory that the tokenizer was saved into, or None if it wrote nothing."""
        directory = self.directory / "saved"
        directory.mkdir()
        self.tokenizer.save(directory)
        return directory if any(directory.iterdir()) else None

    def reload(self) -> AbstractVisualTokenizer:
        """Return a second tokenizer, loaded from what the first one saved."""
        return type(self.tokenizer).load(self.saved)

    @cached_property
    def reference(self) -> AbstractVisualTokenizer:
        """A loaded tokenizer that no check changes, to compare changed ones with."""
        return self.reload()

    def size_of(self, codes: Codes) -> tuple[int, int]:
        """Return the size of the picture that codes stand for."""
        layout = codes.layout
        if isinstance(layout, Ordered) and self.spec.prefix_decodable:
            layout = self.spec.default_layout
        return self.spec.pixels.size_of(layout)


def check_picture(picture: Picture, size: tuple[int, int], origin: str) -> None:
    """Raise `Fault` unless this is a legal picture of that size."""
    if not isinstance(picture, np.ndarray) or picture.dtype != np.float32:
        kind = picture.dtype if isinstance(picture, np.ndarray) else type(picture).__name__
        raise Fault(f"{origin} is {kind}, expected a float32 numpy array")
    if picture.shape != (*size, 3):
        raise Fault(f"{origin} has shape {list(picture.shape)}, expected {[*size, 3]}")
    if not np.isfinite(picture).all():
        raise Fault(f"{origin} has values that are not finite")
    if picture.min() < 0 or picture.max() > 1:
        raise Fault(f"{origin} has values {picture.min():.4g} to {picture.max():.4g}, beyond 0..1")


def check_same_codes(one: Sequence[Codes], other: Sequence[Codes], *, tolerated: float) -> str:
    """Raise `Fault` if layouts or more than a share of the codes differ; return the share."""
    if [item.layout for item in one] != [item.layout for item in other]:
        raise Fault("the layouts differ")
    if [item.array.shape for item in one] != [item.array.shape for item in other]:
        raise Fault("the shapes of the codes differ")
    differing = sum(int((a.array != b.array).sum()) for a, b in zip(one, other, strict=True))
    total = sum(item.array.size for item in one)
    if differing > tolerated * total:
        raise Fault(f"{differing} of {total} codes differ")
    return f"{differing} of {total} codes differ"


def check_same_pictures(
    one: Sequence[npt.NDArray[np.float32]],
    other: Sequence[npt.NDArray[np.float32]],
    *,
    tolerated: float,
) -> str:
    """Raise `Fault` if shapes or pixels differ by more than this; return the difference."""
    if [item.shape for item in one] != [item.shape for item in other]:
        raise Fault("the sizes of the pictures differ")
    largest = max(float(np.abs(a - b).max()) for a, b in zip(one, other, strict=True))
    if not largest <= tolerated:
        raise Fault(f"pixels differ by up to {largest:.2g}")
    return f"pixels differ by at most {largest:.1g}"
