"""Pictures as sixels: a palette, then bands of six rows, one colour of a band after another."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["sixel"]

MAX_COLORS = 255
_FIRST = ord("?")


def sixel(image: Image.Image) -> str:
    """Return an RGB picture as one sixel string, pixel for pixel."""
    few = image.convert("RGB").quantize(MAX_COLORS, method=Image.Quantize.MEDIANCUT)
    pixels = np.asarray(few)
    table = np.asarray(few.getpalette() or [], dtype=np.int64).reshape(-1, 3)
    # Without saying the size first: some terminals would clear as much before painting anything.
    parts = ["\x1bP0;1;0q"]
    for color in np.unique(pixels).tolist():
        red, green, blue = (table[color] * 100 + 127) // 255
        parts.append(f"#{color};2;{red};{green};{blue}")
    for top in range(0, len(pixels), 6):
        parts.append(_band(pixels[top : top + 6]))
    parts.append("\x1b\\")
    return "".join(parts)


def _band(rows: npt.NDArray[np.uint8]) -> str:
    """Return up to six rows of palette indices, one line of sixels per colour."""
    weights = (1 << np.arange(len(rows)))[:, None]
    lines = []
    for color in np.unique(rows).tolist():
        columns = ((rows == color) * weights).sum(axis=0)
        lines.append(f"#{color}{_runs(columns)}")
    return "$".join(lines) + "-"


def _runs(columns: npt.NDArray[np.int64]) -> str:
    """Return one line of sixels with repetitions counted; empty ones at its end are left out."""
    changes = np.flatnonzero(np.diff(columns)) + 1
    starts = [0, *changes.tolist()]
    ends = [*changes.tolist(), len(columns)]
    parts = []
    for start, end in zip(starts, ends, strict=True):
        value, length = int(columns[start]), end - start
        if end == len(columns) and value == 0:
            break
        letter = chr(_FIRST + value)
        parts.append(letter * length if length < 4 else f"!{length}{letter}")
    return "".join(parts)
