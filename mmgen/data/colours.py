"""The colours of a picture in plain words, for questions and answers about colour.

White that reaches the border is background and does not count; white inside the subject does.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["COLOUR_NAMES", "colour_shares", "dominant_colours"]

COLOUR_NAMES = (
    "red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "beige", "black",
    "gray", "white",
)  # fmt: skip
"""Every name that is given."""

_SIDE = 32
_WHITE = 0.92
# Upper ends of the hues in degrees; red closes the circle.
_HUE_ENDS = np.array([15.0, 42.0, 68.0, 170.0, 255.0, 292.0, 342.0])
_HUE_NAMES = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "red")


def dominant_colours(picture: Image.Image, *, min_share: float = 0.15) -> tuple[str, ...]:
    """Return at most three names of colours that cover much of the subject, largest first."""
    shares = colour_shares(picture)
    large = [name for name, share in shares.items() if share >= min_share]
    return tuple(large[:3])


def colour_shares(picture: Image.Image) -> dict[str, float]:
    """Return the share of the subject that has each colour, largest first; {} if all is white."""
    small = picture.convert("RGB").resize((_SIDE, _SIDE), Image.Resampling.NEAREST)
    pixels = np.asarray(small, dtype=np.float32) / np.float32(255)
    subject = pixels[~_background(pixels)]
    if not len(subject):
        return {}
    counts = np.bincount(_names(subject), minlength=len(COLOUR_NAMES))
    order = np.argsort(-counts, kind="stable").tolist()
    return {COLOUR_NAMES[i]: int(counts[i]) / len(subject) for i in order if counts[i]}


def _background(pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Return where white is joined to the border by white."""
    white: npt.NDArray[np.bool_] = pixels.min(axis=-1) >= _WHITE
    reached = np.zeros_like(white)
    edge = np.ones_like(white)
    edge[1:-1, 1:-1] = False
    fresh = white & edge
    while fresh.any():
        reached |= fresh
        spread = np.zeros_like(white)
        spread[1:] |= fresh[:-1]
        spread[:-1] |= fresh[1:]
        spread[:, 1:] |= fresh[:, :-1]
        spread[:, :-1] |= fresh[:, 1:]
        fresh = spread & white & ~reached
    return reached


def _names(pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Return the index in `COLOUR_NAMES` of each of `[count, 3]` pixels."""
    high, low = pixels.max(axis=-1), pixels.min(axis=-1)
    spread = high - low
    saturation = spread / np.maximum(high, 1e-6)
    hue = _hue(pixels, high, spread)
    index = {name: number for number, name in enumerate(COLOUR_NAMES)}
    by_hue = np.array([index[name] for name in _HUE_NAMES])
    result = by_hue[np.searchsorted(_HUE_ENDS, hue)]
    warm = (hue < 48) | (hue > 345)
    result[warm & (hue > 8) & (high < 0.72) & (saturation > 0.3)] = index["brown"]
    result[(hue < 8) & (high < 0.45) & (saturation < 0.7)] = index["brown"]
    result[(hue > 14) & (hue < 55) & (saturation < 0.42) & (high >= 0.72)] = index["beige"]
    result[((hue <= 14) | (hue > 330)) & (saturation < 0.5) & (high > 0.75)] = index["pink"]
    result[(saturation < 0.14) | (spread < 0.07)] = index["gray"]
    result[(saturation < 0.14) & (low >= 0.88)] = index["white"]
    result[(high < 0.22) | ((high < 0.32) & (saturation < 0.35))] = index["black"]
    return result


def _hue(
    pixels: npt.NDArray[np.float32], high: npt.NDArray[np.float32], spread: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    red, green, blue = pixels[:, 0], pixels[:, 1], pixels[:, 2]
    safe = np.maximum(spread, 1e-6)
    hue: npt.NDArray[np.float32] = np.where(
        high == red,
        (green - blue) / safe % 6,
        np.where(high == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    return hue * 60
