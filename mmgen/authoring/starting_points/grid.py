"""A visual tokenizer on a grid: every code is the colour of one block of the picture.

It works as it is, without weights. Replace `_code_of` and `_colour_of` by what you have in mind;
the rest is what any tokenizer on a grid needs.
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

__all__ = ["StartTokenizer"]

FACTOR = 8
"""Pixels along one side of a block."""

LEVELS = 8
"""Levels of red, of green and of blue; a code is one of each."""

GRIDS = (Grid(8, 8), Grid(4, 4), Grid(16, 16))
"""What a picture may be cut into, the default first."""

_GRID_OF_SHAPE = {(grid.rows * FACTOR, grid.columns * FACTOR, 3): grid for grid in GRIDS}


class StartTokenizer(AbstractVisualTokenizer):
    """Blocks of 8 x 8 pixels, each of one of 512 colours."""

    def __init__(self) -> None:
        steps = np.arange(LEVELS, dtype=np.float32) / (LEVELS - 1)
        cube = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1)
        self._colours = cube.reshape(-1, 3).astype(np.float32)
        self._spec = VisualTokenizerSpec(
            codebook_sizes=(len(self._colours),),
            layouts=GRIDS,
            pixels=GridPixels(FACTOR),
            blank_codes=(len(self._colours) - 1,),  # white
            min_psnr=14.0,
        )

    @property
    def spec(self) -> VisualTokenizerSpec:
        return self._spec

    @property
    def fingerprint(self) -> str:
        # Everything that changes a code or a pixel belongs in here.
        digest = hashlib.sha256(repr((FACTOR, [grid.shape for grid in GRIDS])).encode())
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
        grid = _GRID_OF_SHAPE.get(image.shape)
        if grid is None:
            raise ValueError(f"pictures are {list(_GRID_OF_SHAPE)}, got {image.shape}")
        blocks = image.reshape(grid.rows, FACTOR, grid.columns, FACTOR, 3)
        means = blocks.mean(axis=(1, 3)).reshape(grid.num_positions, 3)
        return Codes(self._code_of(means)[:, np.newaxis], grid)

    def _decode_one(self, codes: Codes) -> Picture:
        grid, array = codes.layout, codes.array
        if not isinstance(grid, Grid) or grid not in GRIDS:
            raise ValueError(f"layouts are {GRIDS}, got {grid}")
        if array.shape != (grid.num_positions, 1):
            raise ValueError(f"{grid} needs codes [{grid.num_positions}, 1], got {array.shape}")
        if array.min() < 0 or array.max() >= len(self._colours):
            raise ValueError(f"codes are 0 to {len(self._colours) - 1}, got others")
        blocks = self._colour_of(array[:, 0]).reshape(grid.rows, grid.columns, 3)
        return blocks.repeat(FACTOR, axis=0).repeat(FACTOR, axis=1)

    def _code_of(self, means: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
        """Return the code of each block's mean colour, `[blocks]`."""
        digits = np.rint(means * (LEVELS - 1)).astype(np.int64)
        numbers: npt.NDArray[np.int64] = digits @ np.array([LEVELS * LEVELS, LEVELS, 1])
        return numbers

    def _colour_of(self, codes: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Return what codes stand for, `[blocks, 3]`."""
        colours: npt.NDArray[np.float32] = self._colours[codes]
        return colours
