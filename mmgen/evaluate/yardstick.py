"""Everything that is measured of one tokenizer, the same for all, so that they can be compared."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from mmgen import __version__
from mmgen.errors import SettingsError
from mmgen.evaluate.classifier import Classifier
from mmgen.evaluate.code_model import CodeModelConfig, CodeModelScore, score_codes
from mmgen.evaluate.feature_distance import feature_distance
from mmgen.evaluate.figures import BookFigures, Figures, RatePoint
from mmgen.evaluate.findings import Findings
from mmgen.evaluate.glyphs import sign_scores
from mmgen.evaluate.metrics import detail_psnr, mean_fidelity, ms_ssim, num_scales
from mmgen.evaluate.probe import ProbePack, ProbeScore, probe
from mmgen.evaluate.progress import Progress, unwatched
from mmgen.evaluate.robustness import robustness
from mmgen.evaluate.speed import tokenizer_speeds
from mmgen.evaluate.tokenizer import (
    at_nearest_size,
    bits_of,
    codebook_use,
    nearest_size,
    reconstruct,
)
from mmgen.evaluate.words import CaptionPoint, caption_points, read_while, tried_lengths
from mmgen.visual_tokenizer import AbstractVisualTokenizer, Codes, Ordered, Picture

__all__ = [
    "NUM_SHOWN",
    "Candidate",
    "CodeModelTask",
    "Measured",
    "digest_of",
    "measure",
    "refuse_unlike",
]

NUM_SHOWN = 24
"""Pictures that are kept after decoding, to be looked at."""

BATCH = 32
HELD_OUT = 0.2
"""Share of the measured pictures, the last ones, that a small decoder is scored on if it has no
others to learn from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A tokenizer to measure."""

    name: str
    """What it is called in the table."""
    tokenizer: AbstractVisualTokenizer
    """The tokenizer, loaded."""
    num_parameters: int | None
    """Weights of its network; none where it has nothing to train."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CodeModelTask:
    """What a small decoder of each tokenizer's codes learns from, and how."""

    config: CodeModelConfig
    """The decoder and its training."""
    pictures: tuple[Image.Image, ...] = ()
    """What it learns from; with none, four fifths of the measured pictures, scored on the rest."""
    captions: tuple[str, ...] = ()
    """Their captions, for tokenizers that read them."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measured:
    """The figures of one tokenizer with the pictures that they are about."""

    figures: Figures
    originals: tuple[Picture, ...]
    """The pictures at the tokenizer's sizes."""
    decoded: tuple[Picture, ...]
    """What became of the first of them, as many as are shown."""


def measure(
    candidate: Candidate,
    pictures: Sequence[Image.Image],
    *,
    judge: Classifier | None,
    code_model: CodeModelTask | None,
    progress: Progress,
    speed_seconds: float,
    findings: Findings,
    probe_pack: ProbePack | None = None,
    captions: Sequence[str] | None = None,
    seed: int = 0,
) -> Measured:
    """Measure one tokenizer on some pictures, each at its size nearest to the picture's own.

    Args:
        judge: classifier in whose features pictures are compared; none leaves that out.
        code_model: what a small decoder learns; none leaves it out.
        speed_seconds: how long each of four timings takes.
        findings: what was measured before, and where to keep what is.
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
    subject = {
        "mmgen": __version__,
        "tokenizer": tokenizer.fingerprint,
        "pictures": digest_of(originals),
        "captions": said and list(said),
    }

    def figures() -> Figures:
        return _figures(candidate, originals, said, judge, seed, speed_seconds, watch)

    def score() -> CodeModelScore:
        assert code_model is not None
        return _score(tokenizer, originals, said, code_model, watch)

    def told() -> ProbeScore:
        assert probe_pack is not None
        codes = _encoded(tokenizer, originals, said, watch, "encoding for the probe")
        return probe(tokenizer, codes, probe_pack, progress=watch)

    settings = {"name": name, "seed": seed, "seconds": speed_seconds}
    settings |= {"judge": judge and judge.fingerprint}
    found = findings.kept(f"{name}: fidelity", {**subject, **settings}, Figures, figures)
    if code_model is not None:
        task = {
            "config": asdict(code_model.config),
            "learned": digest_of([np.asarray(item) for item in code_model.pictures]),
            "learned_captions": list(code_model.captions) if said else None,
        }
        label = f"{name}: a small decoder"
        found = replace(
            found,
            code_model=findings.kept(label, {**subject, **task}, CodeModelScore, score),
        )
    if probe_pack is not None:
        pack = {
            "column": probe_pack.column,
            "labels": list(probe_pack.labels),
            "learned": digest_of([np.asarray(item) for item in probe_pack.train]),
            "learned_labels": list(probe_pack.train_labels),
        }
        found = replace(
            found, probe=findings.kept(f"{name}: a probe", {**subject, **pack}, ProbeScore, told)
        )
    _, shown = reconstruct(
        tokenizer,
        originals[:NUM_SHOWN],
        captions=said and said[:NUM_SHOWN],
        progress=unwatched,
    )
    return Measured(figures=found, originals=tuple(originals), decoded=tuple(shown))


def digest_of(arrays: Iterable[npt.NDArray[Any]]) -> str:
    """Return the SHA-256 of pictures and their sizes, in hex."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(repr((array.shape, str(array.dtype))).encode() + array.tobytes())
    return digest.hexdigest()


def refuse_unlike(
    candidates: Sequence[Candidate], pictures: Sequence[Image.Image], task: CodeModelTask
) -> None:
    """Refuse, before anything is measured, what a small decoder could not learn.

    Raises:
        SettingsError: a tokenizer would give pictures several layouts, or they are too few.
    """
    num = len(task.pictures) or len(pictures) - _num_held_out(pictures)
    if num < task.config.batch_size or len(pictures) < 2:
        raise SettingsError(
            f"{num} pictures are too few to train a decoder on; give {task.config.batch_size} or "
            "more with --limit and --filter, which leaves out what is learned from"
        )
    for candidate in candidates:
        layouts = candidate.tokenizer.spec.layouts
        if all(isinstance(layout, Ordered) for layout in layouts):
            continue
        every = (*pictures, *task.pictures)
        sizes = {nearest_size(picture, candidate.tokenizer) for picture in every}
        if len(sizes) > 1:
            raise SettingsError(
                f"a small decoder learns pictures of one size, but {candidate.name} would take "
                f"these at {', '.join(f'{h}x{w}' for h, w in sorted(sizes)[:4])}; give pictures of "
                "one shape, or leave out --with-lm"
            )


def _num_held_out(pictures: Sequence[object]) -> int:
    return max(1, round(len(pictures) * HELD_OUT))


def _encoded(
    tokenizer: AbstractVisualTokenizer,
    originals: Sequence[Picture],
    captions: Sequence[str] | None,
    progress: Progress,
    label: str,
) -> list[Codes]:
    codes: list[Codes] = []
    read = read_while("encode", tokenizer, captions)
    for start in progress(range(0, len(originals), BATCH), label):
        part = slice(start, start + BATCH)
        codes += tokenizer.encode(originals[part], captions=None if read is None else read[part])
    return codes


def _score(
    tokenizer: AbstractVisualTokenizer,
    originals: Sequence[Picture],
    captions: Sequence[str] | None,
    task: CodeModelTask,
    progress: Progress,
) -> CodeModelScore:
    codes = _encoded(tokenizer, originals, captions, progress, "encoding for a small decoder")
    if task.pictures:
        others = [at_nearest_size(picture, tokenizer) for picture in task.pictures]
        said = None if captions is None else task.captions
        learned = _encoded(tokenizer, others, said, progress, "encoding what it learns from")
    else:
        held_out = _num_held_out(codes)
        learned, codes = codes[:-held_out], codes[-held_out:]
    sizes = tokenizer.spec.codebook_sizes
    return score_codes(learned, codes, sizes, task.config, progress=progress)


def _figures(
    candidate: Candidate,
    originals: Sequence[Picture],
    captions: Sequence[str] | None,
    judge: Classifier | None,
    seed: int,
    speed_seconds: float,
    progress: Progress,
) -> Figures:
    """Return everything that is measured of every tokenizer."""
    tokenizer = candidate.tokenizer
    codes, decoded = reconstruct(tokenizer, originals, captions=captions, progress=progress)
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
    points: tuple[CaptionPoint, ...] = ()
    if captions is not None:
        points = caption_points(tokenizer, originals, captions, progress)
    return Figures(
        name=candidate.name,
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
        signs=sign_scores(tokenizer, progress=progress),
        classifier_distance=(
            None if judge is None else feature_distance(judge, originals, decoded)
        ),
        codebooks=books,
        damage=robustness(
            tokenizer, originals, codes, captions=captions, seed=seed, progress=progress
        ),
        rate=_rate(tokenizer, originals, captions, own, progress),
        speeds=tuple(tokenizer_speeds(tokenizer, seconds=speed_seconds, progress=progress)),
        words=points,
    )


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
