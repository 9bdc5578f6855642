"""How faithful a visual tokenizer is, for how many tokens and bits, beside ordinary codecs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from mmgen.evaluate.image_codecs import CodecResult, Format, yardsticks
from mmgen.evaluate.metrics import mean_fidelity
from mmgen.evaluate.progress import Progress
from mmgen.evaluate.report import table
from mmgen.evaluate.words import read_while
from mmgen.pictures import sheet, to_array, to_picture
from mmgen.visual_tokenizer import AbstractVisualTokenizer, Codes, Picture

__all__ = [
    "CodebookUse",
    "TokenizerReport",
    "at_nearest_size",
    "bits_of",
    "codebook_use",
    "evaluate_tokenizer",
    "nearest_size",
    "reconstruct",
    "reconstruction_sheet",
]

SHEET_COLUMNS = 8
FORMATS: tuple[Format, ...] = ("WEBP", "JPEG")


@dataclass(frozen=True, slots=True, kw_only=True)
class CodebookUse:
    """How much of one codebook some pictures used."""

    size: int
    """Codes there are."""
    share: float
    """Share of the codes that occurred at least once."""
    perplexity: float
    """Number of equally frequent codes that would have the same entropy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerReport:
    """What was measured of a tokenizer."""

    name: str
    """The plugin's name."""
    fingerprint: str
    """The tokenizer's own fingerprint."""
    num_pictures: int
    """Pictures measured."""
    psnr: float
    """Mean over pictures, in dB."""
    ssim: float
    """Mean over pictures."""
    tokens_per_picture: float
    """Mean number of codes."""
    bits_per_picture: float
    """Mean size of the codes when every code of a codebook costs the same."""
    codebooks: tuple[CodebookUse, ...]
    """One item per codebook."""
    codecs: tuple[CodecResult, ...]
    """Ordinary codecs on the same pictures."""

    def markdown(self) -> str:
        """Return a table of the tokenizer beside the codecs."""
        own = [
            f"{self.name} ({self.tokens_per_picture:g} tokens, {self.bits_per_picture:.0f} bits)",
            f"{self.bits_per_picture / 8:.0f}",
            f"{self.psnr:.2f}",
            f"{self.ssim:.3f}",
        ]
        others = [
            [
                f"{codec.name} (quality {codec.quality})",
                f"{codec.bytes_per_picture:.0f}",
                f"{codec.psnr:.2f}",
                f"{codec.ssim:.3f}",
            ]
            for codec in self.codecs
        ]
        use = "; ".join(
            f"codebook {index}: {book.share:.0%} of {book.size} codes used, "
            f"perplexity {book.perplexity:.0f}"
            for index, book in enumerate(self.codebooks)
        )
        head = ["", "bytes per picture", "PSNR dB", "SSIM"]
        return f"{table(head, [own, *others])}\n\n{self.num_pictures} pictures; {use}.\n"


def evaluate_tokenizer(
    tokenizer: AbstractVisualTokenizer,
    name: str,
    pictures: Sequence[Image.Image],
    *,
    progress: Progress,
    batch_size: int = 32,
) -> tuple[TokenizerReport, Image.Image]:
    """Return measurements and a sheet of some originals over their reconstructions."""
    originals = [at_nearest_size(picture, tokenizer) for picture in pictures]
    codes, decoded = reconstruct(tokenizer, originals, progress=progress, batch_size=batch_size)
    mean_psnr, mean_ssim = mean_fidelity(originals, decoded)
    bits = float(np.mean([bits_of(item, tokenizer.spec.codebook_sizes) for item in codes]))
    codecs: list[CodecResult] = []
    for form in progress(FORMATS, "JPEG and WebP"):
        codecs += yardsticks(originals, form, bits / 8)
    report = TokenizerReport(
        name=name,
        fingerprint=tokenizer.fingerprint,
        num_pictures=len(originals),
        psnr=mean_psnr,
        ssim=mean_ssim,
        tokens_per_picture=float(np.mean([item.array.size for item in codes])),
        bits_per_picture=bits,
        codebooks=codebook_use(codes, tokenizer.spec.codebook_sizes),
        codecs=tuple(codecs),
    )
    return report, reconstruction_sheet(originals, decoded)


def nearest_size(picture: Image.Image, tokenizer: AbstractVisualTokenizer) -> tuple[int, int]:
    """Return the tokenizer's size nearest to a picture's own, by aspect and then by area."""

    def distance(size: tuple[int, int]) -> tuple[float, float]:
        height, width = size
        aspect = abs(math.log(width / height) - math.log(picture.width / picture.height))
        area = abs(math.log(width * height) - math.log(picture.width * picture.height))
        return (round(aspect, 6), area)

    return min(tokenizer.spec.sizes, key=distance)


def at_nearest_size(picture: Image.Image, tokenizer: AbstractVisualTokenizer) -> Picture:
    """Return a picture at the tokenizer's size nearest to its own."""
    return to_array(picture, nearest_size(picture, tokenizer), tokenizer.spec.resize)


def reconstruct(
    tokenizer: AbstractVisualTokenizer,
    pictures: Sequence[Picture],
    *,
    progress: Progress,
    captions: Sequence[str] | None = None,
    batch_size: int = 32,
) -> tuple[list[Codes], list[Picture]]:
    """Return the codes of pictures, with captions if there are any, and what they decode to."""
    codes: list[Codes] = []
    decoded: list[Picture] = []
    starts = range(0, len(pictures), batch_size)
    for start in progress(starts, "reconstructing"):
        part = slice(start, start + batch_size)
        some = None if captions is None else captions[part]
        batch = tokenizer.encode(pictures[part], captions=read_while("encode", tokenizer, some))
        codes += batch
        seed = start if tokenizer.spec.stochastic else None
        decoded += tokenizer.decode(
            batch, seed=seed, captions=read_while("decode", tokenizer, some)
        )
    return codes, decoded


def bits_of(codes: Codes, codebook_sizes: Sequence[int]) -> float:
    """Return the size of codes in bits when all codes of a codebook are equally dear."""
    return len(codes.array) * sum(math.log2(size) for size in codebook_sizes)


def codebook_use(codes: Sequence[Codes], codebook_sizes: Sequence[int]) -> tuple[CodebookUse, ...]:
    """Return how much of each codebook some codes use."""
    columns = np.concatenate([item.array for item in codes]).T
    result = []
    for column, size in zip(columns, codebook_sizes, strict=True):
        counts = np.bincount(column, minlength=size)
        used = counts[counts > 0] / counts.sum()
        entropy = float(-(used * np.log(used)).sum())
        share = float((counts > 0).mean())
        result.append(CodebookUse(size=size, share=share, perplexity=math.exp(entropy)))
    return tuple(result)


def reconstruction_sheet(
    originals: Sequence[Picture], decoded: Sequence[Picture], *, num_pictures: int = 48
) -> Image.Image:
    """Return rows of originals, each over a row of their reconstructions."""
    pictures: list[Image.Image] = []
    labels: list[str] = []
    shown = min(num_pictures, len(originals))
    columns = min(SHEET_COLUMNS, shown)
    for start in range(0, shown - shown % columns, columns):
        for label, arrays in (("original", originals), ("decoded", decoded)):
            pictures += [to_picture(array) for array in arrays[start : start + columns]]
            labels += [label] * columns
    return sheet(pictures, labels, columns)
