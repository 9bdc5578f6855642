"""What captions are worth to a tokenizer that reads them: fidelity with and without them.

A tokenizer that lets words carry what they can needs fewer codes for the same fidelity (TexTok).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from mmgen.evaluate.metrics import mean_fidelity
from mmgen.evaluate.progress import Progress
from mmgen.visual_tokenizer import AbstractVisualTokenizer, Ordered, Picture

__all__ = ["CaptionPoint", "Words", "caption_points", "read_while", "tried_lengths"]

Words: TypeAlias = Literal["its own", "none", "another's"]

MAX_LENGTHS = 8
"""Lengths that are tried of a tokenizer; of more, the powers of two and the longest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionPoint:
    """Fidelity with captions of one kind, at one length."""

    words: Words
    """Whose caption each picture was encoded and decoded with."""
    tokens: int
    """Codes of a picture."""
    psnr: float
    """Mean over pictures, in dB."""
    ssim: float
    """Mean over pictures."""


def read_while(
    half: Literal["encode", "decode"],
    tokenizer: AbstractVisualTokenizer,
    captions: Sequence[str] | None,
) -> Sequence[str] | None:
    """Return the captions if the tokenizer reads them in this half, else none."""
    return captions if half in tokenizer.spec.captions_used else None


def tried_lengths(tokenizer: AbstractVisualTokenizer) -> list[int]:
    """Return the lengths at which an ordered tokenizer is measured, the shortest first."""
    lengths = sorted(layout.num_positions for layout in tokenizer.spec.layouts)
    if len(lengths) <= MAX_LENGTHS:
        return lengths
    return [length for length in lengths if length & (length - 1) == 0 or length == lengths[-1]]


def caption_points(
    tokenizer: AbstractVisualTokenizer,
    originals: Sequence[Picture],
    captions: Sequence[str],
    progress: Progress,
) -> tuple[CaptionPoint, ...]:
    """Measure at each length with the captions, without any, and with those of other pictures.

    The other picture is half the pictures away, so that no picture keeps its own caption.
    """
    away = len(captions) // 2
    kinds: dict[Words, Sequence[str]] = {
        "its own": captions,
        "none": [""] * len(captions),
        "another's": [*captions[away:], *captions[:away]],
    }
    layouts = tokenizer.spec.layouts
    has_lengths = isinstance(layouts[0], Ordered) and not tokenizer.spec.chooses_length
    lengths: list[int | None] = [*tried_lengths(tokenizer)] if has_lengths else [None]
    seed = 0 if tokenizer.spec.stochastic else None
    points = []
    for words, length in progress([(w, n) for w in kinds for n in lengths], "captions"):
        said = kinds[words]
        codes = tokenizer.encode(
            originals, length=length, captions=read_while("encode", tokenizer, said)
        )
        decoded = tokenizer.decode(codes, seed=seed, captions=read_while("decode", tokenizer, said))
        psnr, ssim = mean_fidelity(originals, decoded)
        tokens = length or codes[0].layout.num_positions
        count = tokens * len(tokenizer.spec.codebook_sizes)
        points.append(CaptionPoint(words=words, tokens=count, psnr=psnr, ssim=ssim))
    return tuple(points)
