"""Pictures to try a tokenizer on: a few smooth-edged shapes on plain or shaded ground.

They are drawn with arithmetic alone, so that equal arguments give equal pictures on any machine.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from mmgen.visual_tokenizer import Picture

__all__ = ["draw_picture", "psnr"]

MAX_PSNR = 100.0
"""What `psnr` gives for equal pictures."""

_Field: TypeAlias = npt.NDArray[np.float64]


def draw_picture(size: tuple[int, int], *, seed: int) -> Picture:
    """Return a drawn picture of `(height, width)` pixels."""
    height, width = size
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float64) + 0.5
    # Both ends of the ground are light, as in most drawings.
    start, end = random.uniform(0.7, 1.0, (2, 3))
    slope = (x / width + y / height)[..., np.newaxis] / 2
    picture = start + (end - start) * slope
    for _ in range(1 + seed % 3):
        centre_y, centre_x = random.uniform(0.25, 0.75, 2)
        radius = random.uniform(0.15, 0.4) * min(size)
        distance = _distance(seed, y - centre_y * height, x - centre_x * width, radius)
        cover = np.clip(0.5 - distance, 0.0, 1.0)[..., np.newaxis]
        picture = picture * (1 - cover) + random.uniform(0.0, 1.0, 3) * cover
        seed += 1
    drawn: Picture = picture.astype(np.float32)
    return drawn


def _distance(kind: int, y: _Field, x: _Field, radius: float) -> _Field:
    """Return the signed distance of each pixel to the outline of a disc, box, ring or diamond."""
    from_centre = np.hypot(y, x)
    fields = (
        from_centre - radius,
        np.maximum(np.abs(y), np.abs(x)) - radius,
        np.abs(from_centre - radius) - radius / 3,
        (np.abs(y) + np.abs(x) - radius) / np.sqrt(2.0),
    )
    field: _Field = fields[kind % len(fields)]
    return field


def psnr(one: Picture, other: Picture) -> float:
    """Return the peak signal-to-noise ratio of two pictures in dB, at most 100."""
    error = float(np.mean((one.astype(np.float64) - other.astype(np.float64)) ** 2))
    return MAX_PSNR if error <= 10 ** (-MAX_PSNR / 10) else float(-10 * np.log10(error))
