"""Everything that is measured of one tokenizer, the same for all, so that they can be compared."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from mmgen.evaluate.classifier import Classifier
from mmgen.evaluate.code_model import CodeModelConfig, CodeModelScore, score_codes
from mmgen.evaluate.feature_distance import feature_distance
from mmgen.evaluate.glyphs import SignScore, sign_scores
from mmgen.evaluate.metrics import detail_psnr, mean_fidelity, ms_ssim, num_scales
from mmgen.evaluate.probe import ProbePack, ProbeScore, probe
from mmgen.evaluate.progress import Progress
from mmgen.evaluate.robustness import Damage, robustness
from mmgen.evaluate.speed import tokenizer_speeds
from mmgen.evaluate.tokenizer import at_nearest_size, bits_of, codebook_use, reconstruct
from mmgen.evaluate.words import CaptionPoint, caption_points, read_while, tried_lengths
from mmgen.testing import Speed
from mmgen.visual_tokenizer import AbstractVisualTokenizer, Codes, Ordered, Picture

__all__ = ["BookFigures", "Candidate", "Figures", "Measured", "RatePoint", "measure"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A tokenizer to measure."""

    name: str
    """What it is called in the table."""
    tokenizer: AbstractVisualTokenizer
    """The tokenizer, loaded."""
    num_parameters: int | None
    """Weights of its network; none where it has nothing to train."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BookFigures:
    """How the pictures used one codebook."""

    size: int
    """Codes there are."""
    used: float
    """Share of the codes that occurred."""
    num_dead: int
    """Codes that never occurred in these pictures."""
    entropy: float
    """Bits that a code says, on average, when only its own frequency is known."""
    perplexity: float
    """Number of equally frequent codes of the same entropy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RatePoint:
    """Fidelity at one size."""

    tokens: float
    """Codes of a picture."""
    bytes_per_picture: float
    """Size of the codes when all of a codebook cost the same."""
    psnr: float
    """Mean over pictures, in dB."""
    ssim: float
    """Mean over pictures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What was measured of one tokenizer."""

    name: str
    """What it is called."""
    fingerprint: str
    """The tokenizer's own fingerprint."""
    num_parameters: int | None
    """Weights of its network; none where it has nothing to train."""
    num_pictures: int
    """Pictures measured."""
    picture_sizes: tuple[tuple[int, int], ...]
    """Heights and widths in pixels at which they were."""
    tokens_per_picture: float
    """Mean number of codes."""
    bits_per_picture: float
    """Mean size of the codes when all of a codebook cost the same."""
    entropy_bits_per_picture: float
    """Mean size when each code costs what its frequency in these pictures says."""
    psnr: float
    """Mean over pictures, in dB."""
    ssim: float
    """Mean over pictures."""
    ms_ssim: float
    """Mean over pictures, at as many scales as `num_scales`."""
    num_scales: int
    """Scales that the smallest picture has room for, 5 in publications."""
    detail_psnr: float
    """Mean PSNR in dB of the tenth of the pixels where a picture changes most."""
    signs: tuple[SignScore, ...]
    """Letters and digits that can still be read, by size."""
    classifier_distance: float | None
    """Fréchet distance in the features of mmgen's own classifier; none without one."""
    codebooks: tuple[BookFigures, ...]
    """One item per codebook."""
    damage: tuple[Damage, ...]
    """Fidelity after codes were replaced."""
    rate: tuple[RatePoint, ...]
    """Fidelity at several lengths of the tokenizer, the shortest first; one point if it has one."""
    speeds: tuple[Speed, ...]
    """Pictures per second."""
    code_model: CodeModelScore | None
    """How hard the codes are to predict; none if that was not asked for."""
    probe: ProbeScore | None
    """What the codes say of a class; none if that was not asked for."""
    words: tuple[CaptionPoint, ...] = ()
    """What captions are worth; nothing of a tokenizer that reads none, or was given none."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measured:
    """The figures of one tokenizer with the pictures that they are about."""

    figures: Figures
    originals: tuple[Picture, ...]
    """The pictures at the tokenizer's sizes."""
    decoded: tuple[Picture, ...]
    """What became of them."""


def measure(
    candidate: Candidate,
    pictures: Sequence[Image.Image],
    *,
    judge: Classifier | None,
    code_model: CodeModelConfig | None,
    progress: Progress,
    speed_seconds: float,
    probe_pack: ProbePack | None = None,
    captions: Sequence[str] | None = None,
    seed: int = 0,
) -> Measured:
    """Measure one tokenizer on some pictures, each at its size nearest to the picture's own.

    Args:
        judge: classifier in whose features pictures are compared; none leaves that out.
        code_model: settings of the small decoder; none leaves it out.
        speed_seconds: how long each of four timings takes.
        probe_pack: classes of the pictures, and where to learn them; none leaves that out.
        captions: one per picture, for a tokenizer that reads them; without, it reads none.
        seed: of the codes that are replaced.
    """
    tokenizer, name = candidate.tokenizer, candidate.name
    said = captions if tokenizer.spec.captions_used else None

    def named(items: Sequence[object], label: str) -> object:
        return progress(items, f"{name}: {label}")

    watch: Progress = named  # type: ignore[assignment]
    originals = [at_nearest_size(picture, tokenizer) for picture in pictures]
    codes, decoded = reconstruct(tokenizer, originals, captions=said, progress=watch)
    pairs = list(zip(originals, decoded, strict=True))
    mean_psnr, mean_ssim = mean_fidelity(originals, decoded)
    sizes = tuple(dict.fromkeys((picture.shape[0], picture.shape[1]) for picture in originals))
    books = _books(codes, tokenizer.spec.codebook_sizes)
    own = RatePoint(
        tokens=float(np.mean([item.array.size for item in codes])),
        bytes_per_picture=_mean_bits(codes, tokenizer) / 8,
        psnr=mean_psnr,
        ssim=mean_ssim,
    )
    positions = float(np.mean([len(item.array) for item in codes]))
    score = None
    if code_model is not None:
        sizes_of_books = tokenizer.spec.codebook_sizes
        score = score_codes(codes, sizes_of_books, code_model, progress=watch)
    figures = Figures(
        name=name,
        fingerprint=tokenizer.fingerprint,
        num_parameters=candidate.num_parameters,
        num_pictures=len(originals),
        picture_sizes=sizes,
        tokens_per_picture=own.tokens,
        bits_per_picture=own.bytes_per_picture * 8,
        entropy_bits_per_picture=positions * sum(book.entropy for book in books),
        psnr=mean_psnr,
        ssim=mean_ssim,
        ms_ssim=float(np.mean([ms_ssim(*pair) for pair in pairs])),
        num_scales=min(num_scales(*size) for size in sizes),
        detail_psnr=float(np.mean([detail_psnr(*pair) for pair in pairs])),
        signs=sign_scores(tokenizer, progress=watch),
        classifier_distance=(
            None if judge is None else feature_distance(judge, originals, decoded)
        ),
        codebooks=books,
        damage=robustness(tokenizer, originals, codes, captions=said, seed=seed, progress=watch),
        rate=_rate(tokenizer, originals, said, own, watch),
        words=() if said is None else caption_points(tokenizer, originals, said, watch),
        speeds=tuple(tokenizer_speeds(tokenizer, seconds=speed_seconds, progress=watch)),
        code_model=score,
        probe=None if probe_pack is None else probe(tokenizer, codes, probe_pack, progress=watch),
    )
    return Measured(figures=figures, originals=tuple(originals), decoded=tuple(decoded))


def _books(codes: Sequence[Codes], sizes: Sequence[int]) -> tuple[BookFigures, ...]:
    return tuple(
        BookFigures(
            size=use.size,
            used=use.share,
            num_dead=use.size - round(use.share * use.size),
            entropy=math.log2(use.perplexity),
            perplexity=use.perplexity,
        )
        for use in codebook_use(codes, sizes)
    )


def _rate(
    tokenizer: AbstractVisualTokenizer,
    originals: Sequence[Picture],
    captions: Sequence[str] | None,
    own: RatePoint,
    progress: Progress,
) -> tuple[RatePoint, ...]:
    """Return a point for each length that a tokenizer can be asked for, or its only one."""
    layouts = tokenizer.spec.layouts
    is_ordered = isinstance(layouts[0], Ordered) and not tokenizer.spec.chooses_length
    if not is_ordered or len(layouts) == 1:
        return (own,)
    points = []
    seed = 0 if tokenizer.spec.stochastic else None
    for length in progress(tried_lengths(tokenizer), "lengths"):
        read = read_while("encode", tokenizer, captions)
        codes = tokenizer.encode(originals, length=length, captions=read)
        read = read_while("decode", tokenizer, captions)
        decoded = tokenizer.decode(codes, seed=seed, captions=read)
        mean_psnr, mean_ssim = mean_fidelity(originals, decoded)
        points.append(
            RatePoint(
                tokens=float(length * len(tokenizer.spec.codebook_sizes)),
                bytes_per_picture=_mean_bits(codes, tokenizer) / 8,
                psnr=mean_psnr,
                ssim=mean_ssim,
            )
        )
    return tuple(points)


def _mean_bits(codes: Sequence[Codes], tokenizer: AbstractVisualTokenizer) -> float:
    return float(np.mean([bits_of(item, tokenizer.spec.codebook_sizes) for item in codes]))
