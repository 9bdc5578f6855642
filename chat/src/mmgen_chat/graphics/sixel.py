"""Pictures as sixels: a palette, then bands of six rows, one colour of a band after another."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["few_colors", "sixel"]

MAX_COLORS = 255
_FIRST = ord("?")


def few_colors(image: Image.Image) -> Image.Image:
    """Return an RGB picture with a palette of as few colours as terminals have registers."""
    return image.quantize(MAX_COLORS, method=Image.Quantize.MEDIANCUT)


def sixel(image: Image.Image) -> str:
    """Return a picture, RGB or with a palette, as one sixel string, pixel for pixel."""
    few = image if image.mode == "P" else few_colors(image)
    pixels = np.asarray(few)
    table = np.asarray(few.getpalette() or [], dtype=np.int64).reshape(-1, 3)
    # Without saying the size first: some terminals would clear as much before painting anything.
    parts = ["\x1bP0;1;0q"]
    for color in np.unique(pixels).tolist():
        red, green, blue = (table[color] * 100 + 127) // 255
        parts.append(f"#{color};2;{red};{green};{blue}")
    parts += [_band(pixels[top : top + 6]) for top in range(0, len(pixels), 6)]
    parts.append("\x1b\\")
    return "".join(parts)


def _band(rows: npt.NDArray[np.uint8]) -> str:
    """Return up to six rows of palette indices, one line of sixels per colour."""
    width = rows.shape[1]
    colors = np.unique(rows)
    lines = np.searchsorted(colors, rows)
    # Which of the six pixels of a column have a colour, as bits: `[colours, columns]`.
    bits = np.zeros((len(colors), width), dtype=np.uint8)
    for row, line in enumerate(lines):
        bits[line, np.arange(width)] |= 1 << row
    is_start = np.ones_like(bits, dtype=bool)
    is_start[:, 1:] = bits[:, 1:] != bits[:, :-1]
    line_of, start = np.nonzero(is_start)
    length = np.diff(np.append(line_of * width + start, len(colors) * width))
    values = bits[line_of, start]
    parts: list[str] = []
    last = -1
    for line, value, count in zip(line_of.tolist(), values.tolist(), length.tolist(), strict=True):
        if line != last:
            parts.append(f"{'$' if parts else ''}#{colors[line]}")
            last = line
        letter = chr(_FIRST + value)
        parts.append(letter * count if count < 4 else f"!{count}{letter}")
    return "".join(parts) + "-"
