"""JPEG, WebP and AVIF as yardsticks: what an ordinary codec makes of pictures in as few bytes.

A visual tokenizer spends far fewer bits than a file format can; the honest comparison is with the
smallest files that the format gives, and with the quality whose size comes nearest.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from PIL import Image, features

from mmgen.evaluate.metrics import mean_fidelity
from mmgen.pictures import to_picture
from mmgen.visual_tokenizer import Picture

__all__ = [
    "CODECS",
    "CodecResult",
    "Format",
    "available_codecs",
    "codec_curve",
    "compressed",
    "nearest_in_size",
    "yardsticks",
]

Format: TypeAlias = Literal["JPEG", "WEBP", "AVIF"]

CODECS: tuple[Format, ...] = ("JPEG", "WEBP", "AVIF")
"""All of them."""

_LABELS: dict[Format, str] = {"JPEG": "JPEG", "WEBP": "WebP", "AVIF": "AVIF"}

QUALITIES = (0, 1, 2, 5, 10, 15, 20, 30, 40, 50, 60, 70, 80, 90, 95)


@dataclass(frozen=True, slots=True, kw_only=True)
class CodecResult:
    """How one codec did at one quality."""

    name: str
    """The codec and how its quality was chosen."""
    quality: int
    """The codec's own scale, 0..100."""
    bytes_per_picture: float
    """Mean size of a whole file."""
    psnr: float
    """Mean over pictures, in dB."""
    ssim: float
    """Mean over pictures."""


def compressed(picture: Picture, form: Format, quality: int) -> bytes:
    """Return a picture as the bytes of a file."""
    buffer = io.BytesIO()
    image = to_picture(picture)
    if form == "JPEG":
        image.save(buffer, "JPEG", quality=quality, optimize=True, subsampling="4:2:0")
    elif form == "WEBP":
        image.save(buffer, "WEBP", quality=quality, method=6)
    else:
        image.save(buffer, "AVIF", quality=quality, speed=6, max_threads=1)
    return buffer.getvalue()


def available_codecs() -> tuple[Format, ...]:
    """Return the codecs that this Pillow was built with."""
    return tuple(form for form in CODECS if form == "JPEG" or features.check(form.lower()))


def codec_curve(pictures: Sequence[Picture], form: Format) -> tuple[CodecResult, ...]:
    """Measure one codec at all qualities, the smallest files first."""
    points = [_measure(pictures, form, quality, _label(form)) for quality in QUALITIES]
    return tuple(sorted(points, key=lambda point: point.bytes_per_picture))


def nearest_in_size(curve: Sequence[CodecResult], num_bytes: float) -> CodecResult:
    """Return the point of a curve whose mean size is nearest in proportion."""
    return min(curve, key=lambda point: abs(math.log(point.bytes_per_picture / num_bytes)))


def yardsticks(pictures: Sequence[Picture], form: Format, num_bytes: float) -> list[CodecResult]:
    """Measure the quality with the smallest files, and the one nearest to a mean size."""
    sizes = {
        quality: float(np.mean([len(compressed(picture, form, quality)) for picture in pictures]))
        for quality in QUALITIES
    }
    smallest = min(sizes, key=lambda quality: sizes[quality])
    nearest = min(sizes, key=lambda quality: abs(sizes[quality] - num_bytes))
    return [
        _measure(pictures, form, smallest, f"{_label(form)}, smallest"),
        _measure(pictures, form, nearest, f"{_label(form)}, nearest size"),
    ]


def _label(form: Format) -> str:
    return _LABELS[form]


def _measure(pictures: Sequence[Picture], form: Format, quality: int, name: str) -> CodecResult:
    files = [compressed(picture, form, quality) for picture in pictures]
    decoded = [_decoded(file) for file in files]
    mean_psnr, mean_ssim = mean_fidelity(pictures, decoded)
    return CodecResult(
        name=name,
        quality=quality,
        bytes_per_picture=float(np.mean([len(file) for file in files])),
        psnr=mean_psnr,
        ssim=mean_ssim,
    )


def _decoded(file: bytes) -> Picture:
    with Image.open(io.BytesIO(file)) as image:
        return np.asarray(image.convert("RGB"), dtype=np.float32) / np.float32(255)
