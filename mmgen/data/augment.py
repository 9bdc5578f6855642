"""Small changes to pictures that are described, so that a model of codes learns what stays.

A shifted picture has quite other codes. A model that has only ever seen each picture in one place
names it only there.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from random import Random

import numpy as np
from PIL import Image

from mmgen.errors import SettingsError

__all__ = ["Augmentation", "augmented"]

_WHITE = (255, 255, 255)


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """How far a picture may be changed; each change is drawn evenly from its range."""

    share: float = 1.0
    """Share of pictures that are changed at all."""
    max_shift: float = 0.0
    """Shift along each side, as a share of the side."""
    max_zoom: float = 0.0
    """Change of scale: 0.1 means 0.9 to 1.1. White fills what becomes free."""
    max_brightness: float = 0.0
    """Change of brightness: 0.1 means 0.9 to 1.1. White stays white."""
    max_hue: float = 0.0
    """Turn of the hue, as a share of the circle."""

    def __post_init__(self) -> None:
        for name in ("share", "max_shift", "max_zoom", "max_brightness", "max_hue"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise SettingsError(f"{name} must be in 0..1, got {value}")
        if self.max_zoom >= 1:
            raise SettingsError(f"max_zoom must be below 1, got {self.max_zoom}")


def augmented(picture: Image.Image, settings: Augmentation, rng: Random) -> Image.Image:
    """Return a changed picture of the same size, or the same picture if nothing is to change."""
    if rng.random() >= settings.share:
        return picture
    zoom = 1 + rng.uniform(-settings.max_zoom, settings.max_zoom)
    shifts = [rng.uniform(-settings.max_shift, settings.max_shift) for _ in range(2)]
    brightness = 1 + rng.uniform(-settings.max_brightness, settings.max_brightness)
    hue = rng.uniform(-settings.max_hue, settings.max_hue)
    if settings.max_shift or settings.max_zoom:
        picture = _moved(picture, zoom, shifts[0], shifts[1])
    if settings.max_brightness or settings.max_hue:
        picture = _tinted(picture, brightness, hue)
    return picture


def _moved(picture: Image.Image, zoom: float, right: float, down: float) -> Image.Image:
    width, height = picture.size
    # The transform maps a place in the result to a place in the picture.
    matrix = (
        1 / zoom,
        0.0,
        width / 2 - (width / 2 + right * width) / zoom,
        0.0,
        1 / zoom,
        height / 2 - (height / 2 + down * height) / zoom,
    )
    return picture.transform(
        picture.size,
        Image.Transform.AFFINE,
        matrix,
        resample=Image.Resampling.BICUBIC,
        fillcolor=_WHITE,
    )


def _tinted(picture: Image.Image, brightness: float, hue: float) -> Image.Image:
    pixels = np.asarray(picture, dtype=np.float32) / np.float32(255)
    turned = pixels @ _hue_matrix(hue)
    gain = np.where(turned.min(axis=-1, keepdims=True) > 0.95, 1.0, brightness)
    return Image.fromarray((np.clip(turned * gain, 0, 1) * 255 + 0.5).astype(np.uint8))


def _hue_matrix(turn: float) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Return the matrix that turns colours about the grey axis: rows are the turned primaries."""
    to_yiq = np.array([colorsys.rgb_to_yiq(*row) for row in np.eye(3).tolist()])
    angle = 2 * np.pi * turn
    cosine, sine = np.cos(angle), np.sin(angle)
    rotation = np.array([[1, 0, 0], [0, cosine, sine], [0, -sine, cosine]])
    return np.asarray(to_yiq @ rotation @ np.linalg.inv(to_yiq), dtype=np.float32)
