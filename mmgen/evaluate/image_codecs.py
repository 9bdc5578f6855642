"""JPEG, WebP and AVIF as yardsticks: what an ordinary codec makes of pictures in as few bytes.

A visual tokenizer spends far fewer bits than a file format can; the honest comparison is with the
smallest files that the format gives, and with the quality whose size comes nearest.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import torch
from PIL import Image, features

from mmgen.evaluate.metrics import mean_fidelity
from mmgen.pictures import to_picture
from mmgen.visual_tokenizer import Picture

__all__ = [
    "CODECS",
    "CURVE_QUALITIES",
    "CodecResult",
    "Format",
    "available_codecs",
    "by_size",
    "codec_point",
    "compressed",
    "curve_sample",
    "nearest_in_size",
    "qualities_beside",
    "yardsticks",
]

Format: TypeAlias = Literal["JPEG", "WEBP", "AVIF"]

CODECS: tuple[Format, ...] = ("JPEG", "WEBP", "AVIF")
"""All of them."""

_LABELS: dict[Format, str] = {"JPEG": "JPEG", "WEBP": "WebP", "AVIF": "AVIF"}

QUALITIES = (0, 1, 2, 5, 10, 15, 20, 30, 40, 50, 60, 70, 80, 90, 95)

CURVE_QUALITIES = QUALITIES[::2]
"""What a curve is drawn through; between two of them, the nearest in size is searched."""

CURVE_PICTURES = 96
"""Pictures that a curve is measured on; of more, so many are drawn."""

CURVE_SEED = 0


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
    num_pictures: int
    """Pictures measured."""


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


def curve_sample(pictures: Sequence[Picture]) -> list[Picture]:
    """Return the pictures that curves are measured on: all, or as many of them as are enough."""
    if len(pictures) <= CURVE_PICTURES:
        return list(pictures)
    random = np.random.default_rng(CURVE_SEED)
    chosen = random.choice(len(pictures), CURVE_PICTURES, replace=False)
    return [pictures[index] for index in sorted(chosen.tolist())]


def codec_point(pictures: Sequence[Picture], form: Format, quality: int) -> CodecResult:
    """Measure one codec at one quality."""
    return _measure(pictures, form, quality, _label(form))


def by_size(points: Iterable[CodecResult]) -> tuple[CodecResult, ...]:
    """Return points as a curve, the smallest files first."""
    return tuple(sorted(points, key=lambda point: point.bytes_per_picture))


def qualities_beside(curve: Sequence[CodecResult], num_bytes: float) -> tuple[int, ...]:
    """Return the qualities that are not on a curve and may come nearer to a size than its own."""
    if num_bytes <= curve[0].bytes_per_picture:
        return ()
    place = QUALITIES.index(nearest_in_size(curve, num_bytes).quality)
    known = {point.quality for point in curve}
    beside = QUALITIES[max(0, place - 1) : place + 2]
    return tuple(quality for quality in beside if quality not in known)


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
    def there_and_back(picture: Picture) -> tuple[int, Picture]:
        file = compressed(picture, form, quality)
        return len(file), _decoded(file)

    # Codecs let other threads work meanwhile, and are given as many as torch is.
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        sizes, decoded = zip(*threads.map(there_and_back, pictures), strict=True)
    mean_psnr, mean_ssim = mean_fidelity(pictures, decoded)
    return CodecResult(
        name=name,
        quality=quality,
        bytes_per_picture=float(np.mean(sizes)),
        psnr=mean_psnr,
        ssim=mean_ssim,
        num_pictures=len(pictures),
    )


def _decoded(file: bytes) -> Picture:
    with Image.open(io.BytesIO(file)) as image:
        return np.asarray(image.convert("RGB"), dtype=np.float32) / np.float32(255)
