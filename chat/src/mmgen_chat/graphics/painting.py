"""A picture in a fixed number of character cells, in each of the ways a terminal can show it.

A painting gives the cells that stand for it, and, where pixels are laid over the cells, the data
to be written afterwards. Each change of a picture is a new painting; whoever holds it puts the
new one in the place of the old.
"""

from __future__ import annotations

import itertools
import secrets
from abc import ABC, abstractmethod
from functools import lru_cache

import numpy as np
from PIL import Image
from rich.color import Color
from rich.segment import Segment
from rich.style import Style
from textual.geometry import Region
from textual.strip import Strip

from mmgen_chat.graphics import escapes
from mmgen_chat.graphics.sixel import few_colors, sixel
from mmgen_chat.graphics.terminal import Terminal

__all__ = ["AbstractPainting", "fitted", "paint"]

_RAMP = " .:-=+*#%@"
_MAX_ENLARGED = 2
"""Half blocks per pixel of a picture, along a side; beyond it only the blocks would grow."""

# A number of 24 bits is spelled by a colour. Other programs number pictures of the same terminal
# too, mostly from 1, so this one begins somewhere far from there.
_numbers = itertools.count(0x100000 + secrets.randbelow(0xD00000))


def fitted(
    size: tuple[int, int], terminal: Terminal, max_columns: int, max_rows: int
) -> tuple[int, int]:
    """Return the columns and rows in which a picture of `(width, height)` pixels is shown."""
    width, height = size
    ratio = terminal.cell_ratio
    if terminal.graphics in ("half-block", "ascii"):
        max_columns = min(max_columns, width * _MAX_ENLARGED)
    if terminal.graphics == "kitty":
        max_columns, max_rows = (min(most, escapes.MAX_CELLS) for most in (max_columns, max_rows))
    columns = min(max_columns, round(max_rows * ratio * width / height))
    columns = max(1, columns)
    rows = max(1, min(max_rows, round(columns * height / width / ratio)))
    return columns, rows


class AbstractPainting(ABC):
    """One picture as one terminal shows it."""

    def __init__(self, image: Image.Image, terminal: Terminal, columns: int, rows: int) -> None:
        self.image = image
        self.terminal = terminal
        self.columns = columns
        self.rows = rows

    @property
    def opening(self) -> str:
        """What has to be written before the cells are shown."""
        return ""

    @property
    def closing(self) -> str:
        """What has to be written after the cells are gone."""
        return ""

    @abstractmethod
    def strip(self, row: int) -> Strip:
        """Return a row of cells."""

    def overlay(self, crop: Region) -> str:
        """Return what lays pixels over a visible part, the cursor at its first cell."""
        return ""

    @property
    def is_overlaid(self) -> bool:
        """Whether `overlay` gives anything."""
        return False


class _Blocks(AbstractPainting):
    """Two pixels per cell: the upper half in the ink, the lower in the paper."""

    def __init__(self, image: Image.Image, terminal: Terminal, columns: int, rows: int) -> None:
        super().__init__(image, terminal, columns, rows)
        small = image.resize((columns, 2 * rows), _resampling(image, columns))
        self._pixels = np.asarray(small)

    def strip(self, row: int) -> Strip:
        pairs = zip(*self._pixels[2 * row : 2 * row + 2].tolist(), strict=True)
        segments = [
            Segment("▀" * len(list(same)), _ink(tuple(upper), tuple(lower)))
            for (upper, lower), same in itertools.groupby(pairs)
        ]
        return Strip(segments, self.columns)


class _Letters(AbstractPainting):
    """Brightness as letters, for terminals without colours or without Unicode."""

    def __init__(self, image: Image.Image, terminal: Terminal, columns: int, rows: int) -> None:
        super().__init__(image, terminal, columns, rows)
        small = image.convert("L").resize((columns, rows), _resampling(image, columns))
        levels = np.asarray(small).astype(np.int64) * len(_RAMP) // 256
        self._lines = ["".join(_RAMP[level] for level in line) for line in levels.tolist()]

    def strip(self, row: int) -> Strip:
        return Strip([Segment(self._lines[row])], self.columns)


class _Kitty(AbstractPainting):
    """Placeholder characters, and the picture handed over beforehand."""

    def __init__(self, image: Image.Image, terminal: Terminal, columns: int, rows: int) -> None:
        super().__init__(image, terminal, columns, rows)
        self._number = next(_numbers)

    @property
    def opening(self) -> str:
        image = _at_least(self.image, self.terminal, self.columns, self.rows)
        sequences = escapes.kitty_transmit(image, self._number, self.columns, self.rows)
        return "".join(self._wrapped(sequence) for sequence in sequences)

    @property
    def closing(self) -> str:
        return self._wrapped(escapes.kitty_delete(self._number))

    def strip(self, row: int) -> Strip:
        number = self._number
        ink = Style(color=Color.from_rgb(number >> 16, number >> 8 & 255, number & 255))
        return Strip(
            [Segment(escapes.kitty_mark(row, column), ink) for column in range(self.columns)],
            self.columns,
        )

    def _wrapped(self, sequence: str) -> str:
        return escapes.through_tmux(sequence) if self.terminal.in_tmux else sequence


class _Overlaid(AbstractPainting):
    """Blank cells, over which pixels are laid."""

    def __init__(self, image: Image.Image, terminal: Terminal, columns: int, rows: int) -> None:
        super().__init__(image, terminal, columns, rows)
        self._crop: Region | None = None
        self._data = ""

    def strip(self, row: int) -> Strip:
        return Strip([Segment(" " * self.columns)], self.columns)

    @property
    def is_overlaid(self) -> bool:
        return True

    def overlay(self, crop: Region) -> str:
        # Cells are written far more often than another part is seen.
        if crop != self._crop:
            self._crop, self._data = crop, self._encoded(crop)
        return self._data

    def _encoded(self, crop: Region) -> str:
        width, height = self.terminal.cell
        whole = self._enlarged((self.columns * width, self.rows * height))
        part = whole.crop(
            (crop.x * width, crop.y * height, crop.right * width, crop.bottom * height)
        )
        if self.terminal.graphics == "sixel":
            return sixel(part)
        return escapes.iterm2_picture(part, crop.width, crop.height)

    def _enlarged(self, size: tuple[int, int]) -> Image.Image:
        if self.terminal.graphics == "sixel" and size[0] >= 2 * self.image.width:
            # Far quicker than finding the colours of the large picture, since previews are small.
            return few_colors(self.image).resize(size, Image.Resampling.NEAREST)
        return _scaled(self.image, size)


def paint(image: Image.Image, terminal: Terminal, columns: int, rows: int) -> AbstractPainting:
    """Return a picture painted in a number of cells."""
    image = image.convert("RGB")
    match terminal.graphics:
        case "kitty":
            return _Kitty(image, terminal, columns, rows)
        case "sixel" | "iterm2":
            return _Overlaid(image, terminal, columns, rows)
        case "half-block":
            return _Blocks(image, terminal, columns, rows)
        case "ascii":
            return _Letters(image, terminal, columns, rows)


@lru_cache(maxsize=16384)
def _ink(upper: tuple[int, int, int], lower: tuple[int, int, int]) -> Style:
    return Style(color=Color.from_rgb(*upper), bgcolor=Color.from_rgb(*lower))


def _resampling(image: Image.Image, columns: int) -> Image.Resampling:
    is_enlarged = columns > image.width
    return Image.Resampling.NEAREST if is_enlarged else Image.Resampling.BOX


def _scaled(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Return a picture at a size in pixels, small drawings with their pixels kept visible."""
    if image.size == size:
        return image
    if size[0] >= 2 * image.width:
        # To a whole multiple with hard edges, then smoothly to the size wanted.
        times = -(-size[0] // image.width)
        image = image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)
    return image.resize(size, Image.Resampling.BICUBIC)


def _at_least(image: Image.Image, terminal: Terminal, columns: int, rows: int) -> Image.Image:
    """Return a picture that a terminal need not enlarge, which some do smoothly and some not."""
    width, height = columns * terminal.cell[0], rows * terminal.cell[1]
    return _scaled(image, (width, height)) if image.width < width else image
