"""A visual tokenizer with several codes at each position of a grid, coarse to fine.

It works as it is, without weights: each codebook names what the ones before it left over. Replace
`codebooks` by learned tables; the rest is what any residual tokenizer needs.
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

__all__ = ["StartTokenizer", "codebooks"]

FACTOR = 8
"""Pixels along one side of a block, which becomes one position."""

PARTS = 2
"""Parts along one side of a block whose colours are kept; a vector has 3 numbers for each part."""

GRIDS = (Grid(8, 8), Grid(4, 4), Grid(16, 16))
"""What a picture may be cut into, the default first."""

_GRID_OF_SHAPE = {(grid.rows * FACTOR, grid.columns * FACTOR, 3): grid for grid in GRIDS}
_AT_ONCE = 4096


def codebooks() -> tuple[npt.NDArray[np.float32], ...]:
    """Return the tables, `[codes, dim]`: the block's colour, its light and shade, its tint."""
    colour = np.tile(_cube(6), (1, PARTS * PARTS))
    # Light from left to right, from top to bottom, and crosswise.
    patterns = np.array([[-1, 1, -1, 1], [-1, -1, 1, 1], [1, -1, -1, 1]])
    shade = np.repeat((_cube(7) - 0.5) @ patterns, 3, axis=1)
    tint = np.tile((_cube(5) - 0.5) / 5, (1, PARTS * PARTS))
    return tuple(table.astype(np.float32) for table in (colour, shade, tint))


def _cube(levels: int) -> npt.NDArray[np.float64]:
    """Return all triples of some levels in 0..1."""
    steps = np.linspace(0.0, 1.0, levels)
    return np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)


class StartTokenizer(AbstractVisualTokenizer):
    """Blocks of 8 x 8 pixels, each of three codes."""

    def __init__(self) -> None:
        self._codebooks = codebooks()
        sizes = tuple(map(len, self._codebooks))
        self._spec = VisualTokenizerSpec(
            codebook_sizes=sizes,
            layouts=GRIDS,
            pixels=GridPixels(FACTOR),
            # White, and nothing to add to it: the middle of the other two.
            blank_codes=(sizes[0] - 1, sizes[1] // 2, sizes[2] // 2),
            min_psnr=15.0,
        )

    @property
    def spec(self) -> VisualTokenizerSpec:
        return self._spec

    @property
    def fingerprint(self) -> str:
        # Everything that changes a code or a pixel belongs in here.
        digest = hashlib.sha256(repr((FACTOR, PARTS, [grid.shape for grid in GRIDS])).encode())
        for table in self._codebooks:
            digest.update(table.tobytes())
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
        return self._codebooks[codebook]

    def _encode_one(self, image: Picture) -> Codes:
        grid = _GRID_OF_SHAPE.get(image.shape)
        if grid is None:
            raise ValueError(f"pictures are {list(_GRID_OF_SHAPE)}, got {image.shape}")
        part = FACTOR // PARTS
        parts = image.reshape(grid.rows, PARTS, part, grid.columns, PARTS, part, 3)
        vectors = parts.mean(axis=(2, 5)).transpose(0, 2, 1, 3, 4).reshape(grid.num_positions, -1)
        columns = []
        for table in self._codebooks:
            columns.append(_nearest(vectors, table))
            vectors = vectors - table[columns[-1]]
        return Codes(np.stack(columns, axis=1), grid)

    def _decode_one(self, codes: Codes) -> Picture:
        grid, array = codes.layout, codes.array
        sizes = self._spec.codebook_sizes
        if not isinstance(grid, Grid) or grid not in GRIDS:
            raise ValueError(f"layouts are {GRIDS}, got {grid}")
        if array.shape != (grid.num_positions, len(sizes)):
            raise ValueError(
                f"{grid} needs codes [{grid.num_positions}, {len(sizes)}], got {array.shape}"
            )
        if (array < 0).any() or (array >= sizes).any():
            raise ValueError(f"codebooks have {sizes} codes, got others")
        tables = zip(self._codebooks, array.T, strict=True)
        vectors = sum(table[column] for table, column in tables)
        parts = np.clip(vectors, 0, 1).reshape(grid.rows, grid.columns, PARTS, PARTS, 3)
        small = parts.transpose(0, 2, 1, 3, 4).reshape(grid.rows * PARTS, grid.columns * PARTS, 3)
        part = FACTOR // PARTS
        picture: Picture = small.repeat(part, axis=0).repeat(part, axis=1)
        return picture


def _nearest(
    vectors: npt.NDArray[np.float32], table: npt.NDArray[np.float32]
) -> npt.NDArray[np.int64]:
    """Return the code whose vector is nearest to each of `[positions, dim]`."""
    squares = (table**2).sum(axis=1)
    found = [
        (squares - 2 * vectors[start : start + _AT_ONCE] @ table.T).argmin(axis=1)
        for start in range(0, len(vectors), _AT_ONCE)
    ]
    return np.concatenate(found)
