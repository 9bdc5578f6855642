"""What wrong codes do to a picture: a language model will draw some that no encoder would have.

After pFID (Qiu et al., 2025): a share of the codes is replaced before decoding, either by one of
the codes whose vectors are nearest, as a model that is nearly right does, or by any.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from mmgen.evaluate.metrics import mean_fidelity
from mmgen.evaluate.progress import Progress
from mmgen.evaluate.words import read_while
from mmgen.visual_tokenizer import AbstractVisualTokenizer, Codes, Picture

__all__ = ["Corruption", "Damage", "corrupted", "robustness"]

Corruption: TypeAlias = Literal["near", "any"]

SHARES = (0.05, 0.1, 0.2)
NUM_NEAR = 16
_AT_ONCE = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """What is left of fidelity after some codes were replaced."""

    corruption: Corruption
    """Replaced by one of the 16 nearest codes, or by any code."""
    share: float
    """Share of the codes that were replaced."""
    psnr: float
    """Mean over pictures against the originals, in dB."""
    ssim: float
    """Likewise."""


def robustness(
    tokenizer: AbstractVisualTokenizer,
    originals: Sequence[Picture],
    codes: Sequence[Codes],
    *,
    seed: int,
    progress: Progress,
    captions: Sequence[str] | None = None,
    batch_size: int = 32,
) -> tuple[Damage, ...]:
    """Return the fidelity that is left for each kind and share of wrong codes."""
    near = [_near_table(tokenizer, codes, book) for book in range(codes[0].array.shape[1])]
    kinds: tuple[Corruption, ...] = ("near", "any")
    result = []
    for kind, share in progress([(k, s) for k in kinds for s in SHARES], "breaking codes"):
        random = np.random.default_rng(seed)
        wrong = [
            corrupted(item, tokenizer, share, near if kind == "near" else None, random)
            for item in codes
        ]
        decoded: list[Picture] = []
        for start in range(0, len(wrong), batch_size):
            part = slice(start, start + batch_size)
            some = None if captions is None else captions[part]
            read = read_while("decode", tokenizer, some)
            noise = start if tokenizer.spec.stochastic else None
            decoded += tokenizer.decode(wrong[part], seed=noise, captions=read)
        mean_psnr, mean_ssim = mean_fidelity(originals, decoded)
        result.append(Damage(corruption=kind, share=share, psnr=mean_psnr, ssim=mean_ssim))
    return tuple(result)


def corrupted(
    codes: Codes,
    tokenizer: AbstractVisualTokenizer,
    share: float,
    near: Sequence[dict[int, npt.NDArray[np.int64]]] | None,
    random: np.random.Generator,
) -> Codes:
    """Return codes of which a share is another legal code: a near one if tables are given."""
    array = codes.array.copy()
    hit = random.random(array.shape) < share
    for position, book in np.argwhere(hit).tolist():
        size = tokenizer.spec.codebook_sizes[book]
        if near is None:
            # Any other code, each as likely.
            array[position, book] = (array[position, book] + random.integers(1, size)) % size
        else:
            array[position, book] = random.choice(near[book][int(array[position, book])])
    return Codes(array, codes.layout)


def _near_table(
    tokenizer: AbstractVisualTokenizer, codes: Sequence[Codes], book: int
) -> dict[int, npt.NDArray[np.int64]]:
    """Return the nearest codes of each code that occurs; itself is not among them."""
    table = np.asarray(tokenizer.code_vectors(book), dtype=np.float32)
    used = np.unique(np.concatenate([item.array[:, book] for item in codes]))
    squares = (table**2).sum(axis=1)
    found: dict[int, npt.NDArray[np.int64]] = {}
    num = min(NUM_NEAR, len(table) - 1)
    for start in range(0, len(used), _AT_ONCE):
        some = used[start : start + _AT_ONCE]
        distances = squares - 2 * table[some] @ table.T
        distances[np.arange(len(some)), some] = np.inf
        nearest = np.argpartition(distances, num - 1, axis=1)[:, :num]
        found |= {int(code): row for code, row in zip(some, nearest, strict=True)}
    return found
