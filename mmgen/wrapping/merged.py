"""Runs of codes written as one code: a larger codebook, and fewer codes for a plain picture.

The codes of a picture are a sequence of its own length, so the layouts are `Ordered`, one for each
length, and what a code covers depends on those before it. Drawing follows one rule, which is
defined for every sequence: codes fill the wrapped tokenizer's positions in their order, each as
many as it stands for. Where they end before the last position, the sequence is a prefix, and the
rest shows the blank code as in any preview; what would lie behind the last position is not drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from mmgen.errors import SettingsError
from mmgen.visual_tokenizer import (
    Codes,
    FixedPixels,
    Layout,
    Ordered,
    Parts,
    Picture,
    VisualTokenizerSpec,
)
from mmgen.wrapping.merging import Merges, learn_merges
from mmgen.wrapping.wrapper import AbstractWrapper, Arrays, Wrapped

__all__ = ["MergedTokenizer", "merge_tokenizer"]


class MergedTokenizer(AbstractWrapper):
    """A tokenizer of one codebook with byte-pair merges; of one picture size, without loss."""

    name: ClassVar[str] = "merged"
    maker: ClassVar[str] = "mmgen tokenizer merge"

    def __init__(self, wrapped: Wrapped, layout: Layout, merges: Merges) -> None:
        """Wrap a tokenizer.

        Args:
            layout: the one of its layouts that is merged.
            merges: over its codebook.

        Raises:
            ValueError: it has another codebook or not this layout.
        """
        super().__init__(wrapped)
        spec = wrapped.tokenizer.spec
        if spec.codebook_sizes != (merges.num_codes,):
            raise ValueError(
                f"the merges are of {merges.num_codes} codes, but {wrapped.name} has codebooks of "
                f"{spec.codebook_sizes}"
            )
        if layout not in spec.layouts:
            raise ValueError(f"{wrapped.name} has no layout {layout}")
        self.merges = merges
        self._inner = wrapped.guarded
        self._layout = layout
        self._num_positions = layout.num_positions
        self._blank = (spec.blank_codes or (0,))[0]
        self._pixels = spec.pixels.size_of(layout)
        self._spec = VisualTokenizerSpec(
            codebook_sizes=(merges.num_symbols,),
            layouts=tuple(Ordered(length) for length in range(self._num_positions, 0, -1)),
            pixels=FixedPixels(*self._pixels),
            resize=spec.resize,
            blank_codes=(self._blank,),
            prefix_decodable=True,
            chooses_length=True,
            captions_used=spec.captions_used,
            stochastic=spec.stochastic,
            min_psnr=spec.min_psnr,
        )

    @property
    def spec(self) -> VisualTokenizerSpec:
        return self._spec

    @property
    def wrapped_layout(self) -> Layout:
        """The layout of the wrapped tokenizer that is merged."""
        return self._layout

    def stated(self) -> dict[str, Any]:
        from mmgen.vocabulary import layout_to_json

        return {"layout": layout_to_json(self._layout), "num_codes": self.merges.num_codes}

    def arrays(self) -> Arrays:
        return {"merges": self.merges.pairs.astype(np.int32)}

    @classmethod
    def restored(
        cls,
        wrapped: Wrapped,
        stated: Mapping[str, Any],
        arrays: Arrays,
        *,
        parts: Parts,
        device: str,
        dtype: str,
    ) -> Self:
        from mmgen.vocabulary import layout_from_json

        merges = Merges(stated["num_codes"], arrays["merges"])
        return cls(wrapped, layout_from_json(stated["layout"]), merges)

    def encode(
        self,
        images: Sequence[Picture],
        *,
        length: int | None = None,
        quality: float | None = None,
        captions: Sequence[str] | None = None,
    ) -> list[Codes]:
        """Return the codes of each picture, as few as the merges give.

        With a length above that, merges are undone, which loses nothing; with one below it, the
        codes are a prefix, of the top of the picture.
        """
        if quality is not None:
            raise ValueError("merged has no quality to choose: its codes lose nothing")
        if length is not None and not 1 <= length <= self._num_positions:
            raise ValueError(f"merged has lengths 1 to {self._num_positions}, got {length}")
        for image in images:
            if image.shape[:2] != self._pixels:
                raise ValueError(
                    f"merged takes pictures of {self._pixels} pixels (height, width), got "
                    f"{image.shape[:2]}; resize the picture first"
                )
        inner = self._layout.length if isinstance(self._layout, Ordered) else None
        inner = inner if len(self._inner.spec.layouts) > 1 else None
        encoded = self._inner.encode(images, length=inner, captions=captions)
        return [self._merged(item, length) for item in encoded]

    def decode(
        self,
        codes: Sequence[Codes],
        *,
        seed: int | None = None,
        steps: int | None = None,
        captions: Sequence[str] | None = None,
    ) -> list[Picture]:
        for item in codes:
            self._check(item)
            if not item.is_complete or not len(item.array):
                raise ValueError(
                    f"{item.layout} needs {item.layout.num_positions} codes, got {len(item.array)}"
                )
        filled = [self._filled(item) for item in codes]
        return self._inner.decode(filled, seed=seed, steps=steps, captions=captions)

    def preview(self, codes: Codes, *, caption: str | None = None) -> Picture:
        self._check(codes)
        expanded = Codes(self._expanded(codes), self._layout)
        return self._inner.preview(expanded, caption=caption)

    def code_vectors(self, codebook: int) -> npt.NDArray[np.float32]:
        """Return the mean of the vectors of what each code stands for, `[codes, dim]`."""
        if codebook != 0:
            raise ValueError(f"merged has one codebook, numbered 0, got {codebook}")
        table = self._inner.code_vectors(0)
        means = [table[list(codes)].mean(axis=0) for codes in self.merges.expansions]
        return np.stack(means).astype(np.float32)

    def _merged(self, codes: Codes, length: int | None) -> Codes:
        symbols = self.merges.apply(codes.array[:, 0].tolist())
        if length is not None and length > len(symbols):
            symbols = self.merges.lengthened(symbols, length)
        symbols = symbols[:length]
        return Codes(np.array(symbols, dtype=np.int64)[:, np.newaxis], Ordered(len(symbols)))

    def _check(self, codes: Codes) -> None:
        """Raise ValueError unless these codes, all or the first, are codes of this tokenizer."""
        if codes.layout not in self._spec.layouts:
            raise ValueError(
                f"merged has the layouts Ordered(1) to Ordered({self._num_positions}), got "
                f"{codes.layout}"
            )
        array, size = codes.array, self.merges.num_symbols
        if array.shape[1] != 1:
            raise ValueError(f"merged has one codebook, got codes of {array.shape[1]}")
        if len(array) and (array.min() < 0 or array.max() >= size):
            raise ValueError(f"codes must be in 0..{size - 1}, got {array.min()}..{array.max()}")

    def _expanded(self, codes: Codes) -> npt.NDArray[np.int64]:
        """Return the wrapped tokenizer's codes up to its last position, `[at most all, 1]`."""
        cells = self.merges.expand(codes.array[:, 0].tolist())[: self._num_positions]
        return np.array(cells, dtype=np.int64).reshape(-1, 1)

    def _filled(self, codes: Codes) -> Codes:
        """Return whole codes of the wrapped tokenizer, blank where there are none."""
        cells = self._expanded(codes)
        if self._inner.spec.prefix_decodable and len(cells) < self._num_positions:
            return Codes(cells, Ordered(len(cells)))
        blank = np.full((self._num_positions - len(cells), 1), self._blank, dtype=np.int64)
        return Codes(np.concatenate([cells, blank]), self._layout)


def merge_tokenizer(
    wrapped: Wrapped,
    codes: Sequence[Codes],
    *,
    num_merges: int,
    max_length: int = 16,
    min_count: int = 2,
) -> MergedTokenizer:
    """Return a tokenizer with merges learned on the codes of pictures.

    Args:
        wrapped: a tokenizer with one codebook.
        codes: of pictures that are like those to come; all of one layout.
        num_merges: at most so many codes more.
        max_length: codes that a new one may stand for at most.
        min_count: how often a pair must occur to be merged.

    Raises:
        SettingsError: the tokenizer has several codebooks, or the codes several layouts.
    """
    sizes = wrapped.tokenizer.spec.codebook_sizes
    if len(sizes) > 1:
        raise SettingsError(
            f"{wrapped.name} has {len(sizes)} codebooks and cannot be merged: a code's codebook "
            "would depend on those before it; take a tokenizer of one codebook"
        )
    layouts = {item.layout for item in codes}
    if len(layouts) != 1:
        raise SettingsError(
            f"merges are learned on codes of one layout, got {len(layouts)}; give pictures, and a "
            "tokenizer whose length is fixed"
        )
    (layout,) = layouts
    if num_merges < 1 or max_length < 2 or min_count < 1:
        raise SettingsError(
            "there must be 1 merge or more, of 2 codes or more, met once or more; got "
            f"{num_merges}, {max_length} and {min_count}"
        )
    merges = learn_merges(
        np.stack([item.array[:, 0] for item in codes]),
        num_codes=sizes[0],
        num_merges=num_merges,
        max_length=max_length,
        min_count=min_count,
    )
    if not len(merges.pairs):
        raise SettingsError(
            f"no two codes occur side by side {min_count} times in {len(codes)} pictures; give "
            "more pictures"
        )
    return MergedTokenizer(wrapped, layout, merges)
