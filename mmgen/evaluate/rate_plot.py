"""Fidelity over size as a picture: tokenizers as points or lines among the curves of codecs."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from mmgen.evaluate.comparison import Comparison
from mmgen.pictures import atomic_file

__all__ = ["can_plot", "draw_rate_plot"]

_GREYS = {"JPEG": "0.75", "WebP": "0.55", "AVIF": "0.3"}


def can_plot() -> bool:
    """Return whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def draw_rate_plot(comparison: Comparison, path: Path) -> None:
    """Write a PNG of PSNR and SSIM over bytes per picture."""
    # The figure class alone: pyplot would choose a window system and keep global state.
    figure = import_module("matplotlib.figure").Figure(figsize=(12, 5))
    for axes, measure in zip(figure.subplots(1, 2), ("psnr", "ssim"), strict=True):
        for curve in comparison.codecs:
            name, sampled = curve.points[0].name, curve.points[0].num_pictures
            line = [(point.bytes_per_picture, getattr(point, measure)) for point in curve.points]
            whose = (
                ""
                if len(curve.tokenizers) == len(comparison.tokenizers)
                else (f" ({', '.join(curve.tokenizers)})")
            )
            if sampled < comparison.tokenizers[0].num_pictures:
                whose += f", {sampled} of the pictures"
            axes.plot(*zip(*line, strict=True), color=_GREYS[name], label=f"{name}{whose}")
        for figures in comparison.tokenizers:
            line = [(point.bytes_per_picture, getattr(point, measure)) for point in figures.rate]
            axes.plot(*zip(*line, strict=True), "o-", label=figures.name)
        axes.set_xscale("log")
        axes.set_xlabel("bytes per picture")
        axes.set_ylabel("PSNR dB" if measure == "psnr" else "SSIM")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.tight_layout()
    with atomic_file(path) as partial:
        figure.savefig(partial, format="png", dpi=110)
