"""Ordinary codecs on the pictures that tokenizers were measured on: curves, and points beside each.

Nothing here depends on a tokenizer but the sizes of its pictures and of its codes, so codecs are
measured once for all tokenizers that saw the same pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import __version__ as pillow_version

from mmgen.evaluate.findings import Findings
from mmgen.evaluate.image_codecs import (
    CURVE_QUALITIES,
    CodecResult,
    Format,
    available_codecs,
    by_size,
    codec_point,
    curve_sample,
    nearest_in_size,
    qualities_beside,
)
from mmgen.evaluate.progress import Progress
from mmgen.evaluate.yardstick import Measured, digest_of
from mmgen.visual_tokenizer import Picture

__all__ = ["CodecCurve", "CodecNeighbour", "codec_curves"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CodecCurve:
    """One codec at several qualities, on the pictures of some of the tokenizers."""

    tokenizers: tuple[str, ...]
    """Those whose pictures had these sizes."""
    points: tuple[CodecResult, ...]
    """The smallest files first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CodecNeighbour:
    """One codec beside one tokenizer."""

    tokenizer: str
    """The tokenizer."""
    point: CodecResult
    """The codec at the quality whose files are nearest in size to the tokenizer's codes."""


class _Pictures:
    """Some pictures and what codecs make of them, each quality once."""

    def __init__(self, pictures: Sequence[Picture], findings: Findings) -> None:
        self._pictures = pictures
        self._findings = findings
        self._subject = {"pillow": pillow_version, "pictures": digest_of(pictures)}
        self._points: dict[tuple[Format, int], CodecResult] = {}

    def point(self, form: Format, quality: int) -> CodecResult:
        """Return one codec at one quality."""
        if (form, quality) not in self._points:
            self._points[form, quality] = self._findings.kept(
                f"{form} {quality} of {len(self._pictures)}",
                {**self._subject, "format": form, "quality": quality},
                CodecResult,
                lambda: codec_point(self._pictures, form, quality),
            )
        return self._points[form, quality]


def codec_curves(
    measured: Sequence[Measured], *, progress: Progress, findings: Findings
) -> tuple[tuple[CodecCurve, ...], tuple[CodecNeighbour, ...]]:
    """Return a curve of each codec for each set of pictures, and each codec beside each tokenizer.

    Curves are measured on a sample of the pictures. The quality nearest in size to a tokenizer is
    found on the sample, between the qualities of the curve too, and measured on all pictures.
    """
    groups: dict[str, list[Measured]] = {}
    for item in measured:
        groups.setdefault(digest_of(item.originals), []).append(item)
    formats = available_codecs()
    curves: list[CodecCurve] = []
    found: dict[tuple[str, Format], CodecResult] = {}
    for group in groups.values():
        names = tuple(item.figures.name for item in group)
        originals = group[0].originals
        sample, every = (
            _Pictures(pictures, findings) for pictures in (curve_sample(originals), originals)
        )
        steps = [(form, quality) for form in formats for quality in CURVE_QUALITIES]
        for form, quality in progress(steps, "JPEG, WebP and AVIF"):
            sample.point(form, quality)
        for form in formats:
            curve = by_size(sample.point(form, quality) for quality in CURVE_QUALITIES)
            curves.append(CodecCurve(tokenizers=names, points=curve))
        pairs = [(item.figures, curve) for item in group for curve in curves[-len(formats) :]]
        labelled = [(*pair, form) for pair, form in zip(pairs, formats * len(group), strict=True)]
        for figures, drawn, form in progress(labelled, "codecs of the nearest size"):
            num_bytes = figures.bits_per_picture / 8
            beside = [sample.point(form, q) for q in qualities_beside(drawn.points, num_bytes)]
            nearest = nearest_in_size([*drawn.points, *beside], num_bytes)
            found[figures.name, form] = every.point(form, nearest.quality)
    return tuple(curves), tuple(
        CodecNeighbour(tokenizer=item.figures.name, point=found[item.figures.name, form])
        for item in measured
        for form in formats
    )
