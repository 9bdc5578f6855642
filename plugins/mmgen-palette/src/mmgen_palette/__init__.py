"""A visual tokenizer without weights: every code is the colour of one block of the picture.

It is the smallest useful plugin, and exact: encoding a decoded picture gives the same codes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mmgen.visual_tokenizer import (
    AbstractVisualTokenizer,
    Codes,
    Grid,
    GridPixels,
    Picture,
    VisualTokenizerSpec,
)

__all__ = ["FACTOR", "PaletteTokenizer", "palette"]

FACTOR = 8
"""Pixels along one side of a block."""

_GRIDS = (Grid(8, 8), Grid(4, 4), Grid(16, 16), Grid(8, 12), Grid(12, 8))
_GRID_OF_SHAPE = {(grid.rows * FACTOR, grid.columns * FACTOR, 3): grid for grid in _GRIDS}


def palette() -> npt.NDArray[np.float32]:
    """Return the colours, `[256, 3]`: a 6 x 6 x 6 cube, then 40 greys between its own."""
    levels = np.linspace(0.0, 1.0, 6)
    cube = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(216, 3)
    greys = np.repeat((np.arange(40)[:, np.newaxis] + 0.5) / 40, 3, axis=1)
    return np.concatenate([cube, greys]).astype(np.float32)


class PaletteTokenizer(AbstractVisualTokenizer):
    """Blocks of 8 x 8 pixels, each of one of 256 fixed colours."""

    def __init__(self) -> None:
        self._palette = palette()
        self._spec = VisualTokenizerSpec(
            codebook_sizes=(len(self._palette),),
            layouts=_GRIDS,
            pixels=GridPixels(FACTOR),
            blank_codes=(251,),  # a light grey
            min_psnr=14.0,
        )

    @property
    def spec(self) -> VisualTokenizerSpec:
        return self._spec

    @property
    def fingerprint(self) -> str:
        digest = hashlib.sha256(repr((FACTOR, [grid.shape for grid in _GRIDS])).encode())
        digest.update(self._palette.tobytes())
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
            raise ValueError("palette takes neither a length nor a quality nor captions")
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
        return self._palette

    def _encode_one(self, image: Picture) -> Codes:
        grid = _GRID_OF_SHAPE.get(image.shape)
        if grid is None:
            raise ValueError(f"palette takes {list(_GRID_OF_SHAPE)}, got a picture {image.shape}")
        blocks = image.reshape(grid.rows, FACTOR, grid.columns, FACTOR, 3)
        means = blocks.mean(axis=(1, 3)).reshape(grid.num_positions, 1, 3)
        distances = ((means - self._palette) ** 2).sum(axis=-1)
        return Codes(distances.argmin(axis=-1)[:, np.newaxis], grid)

    def _decode_one(self, codes: Codes) -> Picture:
        grid, array = codes.layout, codes.array
        if grid not in _GRIDS:
            raise ValueError(f"palette has the layouts {_GRIDS}, got {grid}")
        if array.shape != (grid.num_positions, 1):
            raise ValueError(f"{grid} needs codes [{grid.num_positions}, 1], got {array.shape}")
        if array.min() < 0 or array.max() >= len(self._palette):
            raise ValueError(f"palette has the codes 0 to {len(self._palette) - 1}, got others")
        blocks = self._palette[array[:, 0]].reshape(grid.rows, grid.columns, 3)
        return blocks.repeat(FACTOR, axis=0).repeat(FACTOR, axis=1)
