"""A visual tokenizer of several grids, coarse to fine: each adds what the coarser ones left out.

It works as it is, without weights. Replace the two functions at the end, which shrink and enlarge,
and the colours; the rest is what any tokenizer of scales needs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from mmgen.visual_tokenizer import (
    AbstractVisualTokenizer,
    Codes,
    FixedPixels,
    Picture,
    Scales,
    VisualTokenizerSpec,
)

__all__ = ["StartTokenizer"]

SIDE = 64
"""Pixels along each side of a picture."""

SCALES = Scales(((1, 1), (2, 2), (4, 4), (8, 8)))
"""Rows and columns of each grid; all must divide SIDE."""

LEVELS = 9
"""Levels of red, of green and of blue, from -1 to 1; odd, so that 0 is among them."""

GAINS = (0.5, 0.5, 0.5, 0.5)
"""What 1 stands for at each scale."""


class StartTokenizer(AbstractVisualTokenizer):
    """Grids of 1, 4, 16 and 64 colours, each added to those before it."""

    def __init__(self) -> None:
        steps = np.linspace(-1.0, 1.0, LEVELS, dtype=np.float32)
        cube = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1)
        self._colours = cube.reshape(-1, 3).astype(np.float32)
        self._spec = VisualTokenizerSpec(
            codebook_sizes=(len(self._colours),),
            layouts=(SCALES,),
            pixels=FixedPixels(SIDE, SIDE),
            blank_codes=(len(self._colours) // 2,),  # nothing to add
            min_psnr=14.0,
        )

    @property
    def spec(self) -> VisualTokenizerSpec:
        return self._spec

    @property
    def fingerprint(self) -> str:
        # Everything that changes a code or a pixel belongs in here.
        digest = hashlib.sha256(repr((SIDE, SCALES.sizes, GAINS)).encode())
        digest.update(self._colours.tobytes())
        return digest.hexdigest()

    def encode(
        self,
        images: Sequence[Picture],
        *,
        length: int | None = None,
        quality: float | None = None,
        captions: Sequence[str] | None = None,
    ) -> list[Codes]:
        if length is not None or quality is not None or captions is not None:
            raise ValueError("this tokenizer takes neither a length nor a quality nor captions")
        return [self._encode_one(image) for image in images]

    def decode(
        self,
        codes: Sequence[Codes],
        *,
        seed: int | None = None,
        steps: int | None = None,
        captions: Sequence[str] | None = None,
    ) -> list[Picture]:
        return [self._decode_one(item) for item in codes]

    def code_vectors(self, codebook: int) -> npt.NDArray[np.float32]:
        return self._colours

    def _encode_one(self, image: Picture) -> Codes:
        if image.shape != (SIDE, SIDE, 3):
            raise ValueError(f"pictures are {(SIDE, SIDE, 3)}, got {image.shape}")
        drawn = np.full_like(image, 0.5)
        codes = []
        for (rows, columns), gain in zip(SCALES.sizes, GAINS, strict=True):
            missing = _shrunk(image - drawn, rows, columns) / gain
            digits = np.rint((np.clip(missing, -1, 1) + 1) / 2 * (LEVELS - 1)).astype(np.int64)
            codes.append(digits.reshape(-1, 3) @ np.array([LEVELS * LEVELS, LEVELS, 1]))
            drawn += _enlarged(self._colours[codes[-1]], rows, columns) * np.float32(gain)
        return Codes(np.concatenate(codes)[:, np.newaxis], SCALES)

    def _decode_one(self, codes: Codes) -> Picture:
        array = codes.array
        if codes.layout != SCALES:
            raise ValueError(f"the layout is {SCALES}, got {codes.layout}")
        if array.shape != (SCALES.num_positions, 1):
            raise ValueError(f"codes are [{SCALES.num_positions}, 1], got {array.shape}")
        if array.min() < 0 or array.max() >= len(self._colours):
            raise ValueError(f"codes are 0 to {len(self._colours) - 1}, got others")
        drawn = np.full((SIDE, SIDE, 3), 0.5, dtype=np.float32)
        for (rows, columns), gain, part in zip(SCALES.sizes, GAINS, _parts(array), strict=True):
            drawn += _enlarged(self._colours[part], rows, columns) * np.float32(gain)
        return np.clip(drawn, 0, 1)


def _parts(array: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.int64]]:
    """Yield the codes of each scale, `[rows * columns]`."""
    start = 0
    for rows, columns in SCALES.sizes:
        yield array[start : start + rows * columns, 0]
        start += rows * columns


def _shrunk(picture: Picture, rows: int, columns: int) -> npt.NDArray[np.float32]:
    """Return the mean colour of each cell, `[rows, columns, 3]`."""
    cells = picture.reshape(rows, SIDE // rows, columns, SIDE // columns, 3)
    means: npt.NDArray[np.float32] = cells.mean(axis=(1, 3))
    return means


def _enlarged(colours: npt.NDArray[np.float32], rows: int, columns: int) -> Picture:
    """Return a picture of `[rows * columns, 3]` colours."""
    cells = colours.reshape(rows, columns, 3)
    return cells.repeat(SIDE // rows, axis=0).repeat(SIDE // columns, axis=1)
