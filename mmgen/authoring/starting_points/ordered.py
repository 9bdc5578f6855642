"""A visual tokenizer of a sequence of codes, the most telling first; any prefix is a picture.

It works as it is, without weights: each code is one wave of the cosine transform, slow ones first.
Replace `_analysed` and `_painted` by networks; the rest is what any ordered tokenizer needs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mmgen.visual_tokenizer import (
    AbstractVisualTokenizer,
    Codes,
    FixedPixels,
    Ordered,
    Picture,
    VisualTokenizerSpec,
)

__all__ = ["StartTokenizer"]

SIDE = 64
"""Pixels along each side of a picture."""

LENGTHS = (64, 32, 16, 8, 4, 2, 1)
"""Lengths that a picture may be given, the default first; `decode` takes every prefix besides."""

LEVELS = (17, 7, 7)
"""Levels of light, of blue and of red in one code; odd, so that 0 is among them."""

# Light and the two differences of colour, of which most pictures have less.
_TO_LIGHT = np.array(
    [[0.299, 0.587, 0.114], [-0.169, -0.331, 0.5], [0.5, -0.419, -0.081]], dtype=np.float32
)
_FROM_LIGHT = np.linalg.inv(_TO_LIGHT.astype(np.float64)).astype(np.float32)


def _waves() -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return the slowest waves `[longest, SIDE, SIDE]`, and how strong each may be."""
    places = (np.arange(SIDE) + 0.5) / SIDE
    order = sorted(
        ((u, v) for u in range(SIDE) for v in range(SIDE)), key=lambda wave: (sum(wave), wave)
    )[: max(LENGTHS)]
    waves = [np.outer(np.cos(np.pi * u * places), np.cos(np.pi * v * places)) for u, v in order]
    gains = [1.0 if u == v == 0 else 0.9 / (u + v) ** 0.8 for u, v in order]
    return np.stack(waves).astype(np.float32), np.array(gains, dtype=np.float32)


class StartTokenizer(AbstractVisualTokenizer):
    """Waves of a 64 x 64 picture, each of one code, slow ones first."""

    def __init__(self) -> None:
        self._waves, self._gains = _waves()
        steps = [np.linspace(-1.0, 1.0, levels) for levels in LEVELS]
        table = np.stack(np.meshgrid(*steps, indexing="ij"), axis=-1).reshape(-1, 3)
        # A code is as strong in colour as its levels are fine.
        self._vectors: npt.NDArray[np.float32] = (table * [0.5, 0.35, 0.35]).astype(np.float32)
        self._spec = VisualTokenizerSpec(
            codebook_sizes=(len(self._vectors),),
            layouts=tuple(Ordered(length) for length in LENGTHS),
            pixels=FixedPixels(SIDE, SIDE),
            blank_codes=(len(self._vectors) // 2,),  # no wave
            prefix_decodable=True,
            min_psnr=14.0,
        )

    @property
    def spec(self) -> VisualTokenizerSpec:
        return self._spec

    @property
    def fingerprint(self) -> str:
        # Everything that changes a code or a pixel belongs in here.
        digest = hashlib.sha256(repr((SIDE, LENGTHS, LEVELS, _TO_LIGHT.tolist())).encode())
        # Cosines differ in their last bit from one machine to the next.
        digest.update(np.rint(self._waves * 1000).astype(np.int16).tobytes())
        digest.update(np.rint(self._gains * 1000).astype(np.int16).tobytes())
        digest.update(np.rint(self._vectors * 1000).astype(np.int16).tobytes())
        return digest.hexdigest()

    def encode(
        self,
        images: Sequence[Picture],
        *,
        length: int | None = None,
        quality: float | None = None,
        captions: Sequence[str] | None = None,
    ) -> list[Codes]:
        if captions is not None:
            raise ValueError("this tokenizer takes no captions")
        if length is not None and (quality is not None or length not in LENGTHS):
            raise ValueError(f"give one of the lengths {LENGTHS} or a quality, got {length}")
        if quality is not None and not 0 <= quality <= 1:
            raise ValueError(f"quality lies in 0..1, got {quality}")
        return [self._encode_one(image, length, quality) for image in images]

    def decode(
        self,
        codes: Sequence[Codes],
        *,
        seed: int | None = None,
        steps: int | None = None,
        captions: Sequence[str] | None = None,
    ) -> list[Picture]:
        return [self._decode_one(item) for item in codes]

    def code_vectors(self, codebook: int) -> npt.NDArray[np.float32]:
        return self._vectors

    def _encode_one(self, image: Picture, length: int | None, quality: float | None) -> Codes:
        if image.shape != (SIDE, SIDE, 3):
            raise ValueError(f"pictures are {(SIDE, SIDE, 3)}, got {image.shape}")
        codes = self._analysed(image)
        if quality is not None:
            length = self._length_for(image, codes, quality)
        length = LENGTHS[0] if length is None else length
        return Codes(codes[:length, np.newaxis], Ordered(length))

    def _decode_one(self, codes: Codes) -> Picture:
        array, longest = codes.array, max(LENGTHS)
        if not isinstance(codes.layout, Ordered) or not codes.is_complete:
            raise ValueError(f"codes of a complete Ordered layout are needed, got {codes.layout}")
        if array.shape[1] != 1 or not 1 <= len(array) <= longest:
            raise ValueError(f"1 to {longest} positions of one code are needed, got {array.shape}")
        if array.min() < 0 or array.max() >= len(self._vectors):
            raise ValueError(f"codes are 0 to {len(self._vectors) - 1}, got others")
        return self._painted(array[:, 0])

    def _analysed(self, image: Picture) -> npt.NDArray[np.int64]:
        """Return the code of every wave, `[longest]`."""
        light = (image - 0.5) @ _TO_LIGHT.T
        lengths = (self._waves**2).sum(axis=(1, 2))[:, np.newaxis]
        strengths = np.tensordot(self._waves, light, axes=((1, 2), (0, 1))) / lengths
        largest = self._vectors[-1] * self._gains[:, np.newaxis]
        shares = np.clip(strengths / largest, -1, 1)
        digits = np.rint((shares + 1) / 2 * (np.array(LEVELS) - 1)).astype(np.int64)
        codes: npt.NDArray[np.int64] = digits @ np.array([LEVELS[1] * LEVELS[2], LEVELS[2], 1])
        return codes

    def _painted(self, codes: npt.NDArray[np.int64]) -> Picture:
        """Return the picture of the first codes, however many."""
        strengths = self._vectors[codes] * self._gains[: len(codes), np.newaxis]
        light = np.tensordot(self._waves[: len(codes)], strengths, axes=((0,), (0,)))
        picture: Picture = np.clip(light @ _FROM_LIGHT.T + 0.5, 0, 1).astype(np.float32)
        return picture

    def _length_for(self, image: Picture, codes: npt.NDArray[np.int64], quality: float) -> int:
        """Return the shortest length that keeps a share of what the longest gains."""
        errors = {
            length: float(((self._painted(codes[:length]) - image) ** 2).mean())
            for length in sorted(LENGTHS)
        }
        worst, best = errors[min(LENGTHS)], errors[max(LENGTHS)]
        allowed = worst - quality * (worst - best)
        return next((n for n, error in errors.items() if error <= allowed), max(LENGTHS))
