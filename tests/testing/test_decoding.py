"""Each check of `decode` and `preview` catches its fault, and says so by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest

from mmgen.testing import check
from mmgen.visual_tokenizer import (
    AbstractVisualTokenizer,
    Codes,
    FixedPixels,
    Ordered,
    Picture,
    VisualTokenizerSpec,
)
from mmgen_palette import PaletteTokenizer


class Decoding(PaletteTokenizer):
    """A palette whose `decode` a fault can replace."""

    def decode(
        self,
        codes: Sequence[Codes],
        *,
        seed: int | None = None,
        steps: int | None = None,
        captions: Sequence[str] | None = None,
    ) -> list[Picture]:
        return self.change(super().decode(codes), seed)

    def change(self, pictures: list[Picture], seed: int | None) -> list[Picture]:
        return pictures


class BeyondOne(Decoding):
    def change(self, pictures: list[Picture], seed: int | None) -> list[Picture]:
        return [picture * np.float32(1.5) for picture in pictures]


class NotFinite(Decoding):
    def change(self, pictures: list[Picture], seed: int | None) -> list[Picture]:
        return [np.where(picture > 0.5, np.float32(np.nan), picture) for picture in pictures]


class DoublePrecision(Decoding):
    def change(self, pictures: list[Picture], seed: int | None) -> list[Picture]:
        return [picture.astype(np.float64) for picture in pictures]


class Transposed(Decoding):
    def change(self, pictures: list[Picture], seed: int | None) -> list[Picture]:
        return [picture.transpose(1, 0, 2) for picture in pictures]


class LosesAPicture(Decoding):
    def change(self, pictures: list[Picture], seed: int | None) -> list[Picture]:
        return pictures[:-1]


class DependsOnTheBatch(Decoding):
    def change(self, pictures: list[Picture], seed: int | None) -> list[Picture]:
        return [picture / np.float32(len(pictures)) for picture in pictures]


class PromisesTooMuch(PaletteTokenizer):
    @property
    def spec(self) -> VisualTokenizerSpec:
        return dataclasses.replace(super().spec, min_psnr=60.0)


class BadAtItsOwnPictures(PaletteTokenizer):
    def encode(
        self,
        images: Sequence[Picture],
        *,
        length: int | None = None,
        quality: float | None = None,
        captions: Sequence[str] | None = None,
    ) -> list[Codes]:
        honest = super().encode(images)
        flat = [np.array_equal(image[0, 0], image[7, 7]) for image in images]
        return [
            Codes(item.array * 0, item.layout) if is_flat else item
            for item, is_flat in zip(honest, flat, strict=True)
        ]


class NoPreviewOfNothing(PaletteTokenizer):
    def preview(self, codes: Codes, *, caption: str | None = None) -> Picture:
        rest = codes.layout.num_positions - len(codes.array)
        array = np.concatenate([codes.array, np.repeat(codes.array[-1:], rest, axis=0)])
        return self.decode([Codes(array, codes.layout)])[0]


class PreviewIgnoresCodes(PaletteTokenizer):
    def preview(self, codes: Codes, *, caption: str | None = None) -> Picture:
        return super().preview(Codes(codes.array[:0], codes.layout))


class PreviewWaitsForTheEnd(PaletteTokenizer):
    def preview(self, codes: Codes, *, caption: str | None = None) -> Picture:
        return super().preview(codes if codes.is_complete else Codes(codes.array[:0], codes.layout))


class PreviewNeverSharpens(PaletteTokenizer):
    def preview(self, codes: Codes, *, caption: str | None = None) -> Picture:
        return super().preview(codes) * np.float32(0.5)


class FillsAndClamps(PaletteTokenizer):
    def decode(
        self,
        codes: Sequence[Codes],
        *,
        seed: int | None = None,
        steps: int | None = None,
        captions: Sequence[str] | None = None,
    ) -> list[Picture]:
        legal = [Codes(np.clip(item.array, 0, 255), item.layout) for item in codes]
        return super().decode(legal)


class FillsIncomplete(PaletteTokenizer):
    def decode(
        self,
        codes: Sequence[Codes],
        *,
        seed: int | None = None,
        steps: int | None = None,
        captions: Sequence[str] | None = None,
    ) -> list[Picture]:
        shapes = [(item.layout.num_positions, 1) for item in codes]
        arrays = [np.resize(item.array, s) for item, s in zip(codes, shapes, strict=True)]
        return super().decode([Codes(a, i.layout) for a, i in zip(arrays, codes, strict=True)])


class Noisy(Decoding):
    """Honest: the noise is drawn from the seed."""

    @property
    def spec(self) -> VisualTokenizerSpec:
        return dataclasses.replace(super().spec, stochastic=True)

    def change(self, pictures: list[Picture], seed: int | None) -> list[Picture]:
        random = np.random.default_rng(seed)
        noise = [random.uniform(0, 0.01, picture.shape) for picture in pictures]
        return [
            np.clip(picture + item, 0, 1).astype(np.float32)
            for picture, item in zip(pictures, noise, strict=True)
        ]


class IgnoresTheSeed(Noisy):
    def change(self, pictures: list[Picture], seed: int | None) -> list[Picture]:
        return super().change(pictures, 0)


class NoiseWithoutSeed(Noisy):
    def change(self, pictures: list[Picture], seed: int | None) -> list[Picture]:
        return super().change(pictures, None)


class Stripes(AbstractVisualTokenizer):
    """Honest: up to four stripes, top first, of a red and a cyan level; any prefix decodes."""

    lengths = (4, 2, 1)

    @property
    def spec(self) -> VisualTokenizerSpec:
        return VisualTokenizerSpec(
            codebook_sizes=(16, 8),
            layouts=tuple(Ordered(length) for length in self.lengths),
            pixels=FixedPixels(16, 16),
            blank_codes=(15, 7),
            prefix_decodable=True,
            min_psnr=10.0,
        )

    @property
    def fingerprint(self) -> str:
        return "5" * 64

    def encode(
        self,
        images: Sequence[Picture],
        *,
        length: int | None = None,
        quality: float | None = None,
        captions: Sequence[str] | None = None,
    ) -> list[Codes]:
        length = self.lengths[0] if length is None else length
        if length not in self.lengths or quality is not None or captions is not None:
            raise ValueError(f"lengths are {self.lengths}, got {length}, {quality}, {captions}")
        if any(image.shape != (16, 16, 3) for image in images):
            raise ValueError("pictures must be 16x16")
        codes = []
        for image in images:
            means = image.reshape(4, 4, 16, 3).mean(axis=(1, 2))[:length]
            array = np.stack([means[:, 1] * 15, means[:, 0] * 7], axis=1)
            codes.append(Codes(array.round().astype(np.int64), Ordered(length)))
        return codes

    def decode(
        self,
        codes: Sequence[Codes],
        *,
        seed: int | None = None,
        steps: int | None = None,
        captions: Sequence[str] | None = None,
    ) -> list[Picture]:
        pictures = []
        for item in codes:
            length = len(item.array)
            if not item.is_complete or item.array.shape != (length, 2) or not 1 <= length <= 4:
                raise ValueError(f"expected 1 to 4 positions of 2 codes, got {item.array.shape}")
            if (item.array < 0).any() or (item.array >= (16, 8)).any():
                raise ValueError("a code is outside its codebook")
            pictures.append(self.paint(item.array))
        return pictures

    def paint(self, array: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> Picture:
        rows = np.concatenate([array, np.repeat(array[-1:], 4 - len(array), axis=0)])
        stripes = np.stack([rows[:, 1] / 7, rows[:, 0] / 15, rows[:, 0] / 15], axis=1)
        picture: Picture = stripes.repeat(4, axis=0)[:, np.newaxis].astype(np.float32)
        return picture.repeat(16, axis=1)


class NoShortPrefixes(Stripes):
    def decode(
        self,
        codes: Sequence[Codes],
        *,
        seed: int | None = None,
        steps: int | None = None,
        captions: Sequence[str] | None = None,
    ) -> list[Picture]:
        if any(len(item.array) not in self.lengths for item in codes):
            raise ValueError("lengths of the spec only")
        return super().decode(codes)


class PrefixNotLookedAt(Stripes):
    def paint(self, array: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> Picture:
        return super().paint(array if len(array) == 4 else np.zeros((1, 2), dtype=np.int64))


class OneLengthForAll(Stripes):
    def encode(
        self,
        images: Sequence[Picture],
        *,
        length: int | None = None,
        quality: float | None = None,
        captions: Sequence[str] | None = None,
    ) -> list[Codes]:
        return super().encode(images)


class AnyLength(Stripes):
    def encode(
        self,
        images: Sequence[Picture],
        *,
        length: int | None = None,
        quality: float | None = None,
        captions: Sequence[str] | None = None,
    ) -> list[Codes]:
        return super().encode(images, length=length or None)


@pytest.mark.parametrize(
    ("faulty", "name", "found"),
    [
        (BeyondOne, "pixels", "beyond 0..1"),
        (NotFinite, "pixels", "not finite"),
        (DoublePrecision, "pixels", "float64, expected a float32"),
        (Transposed, "pixels", "has shape [96, 64, 3], expected [64, 96, 3]"),
        (LosesAPicture, "pixels", "5 items gave 4 pictures"),
        (DependsOnTheBatch, "batch independence", "pixels differ"),
        (PromisesTooMuch, "round trip", "promises 60.0"),
        (BadAtItsOwnPictures, "stability", "promises 14.0"),
        (NoPreviewOfNothing, "preview", "Error"),
        (PreviewIgnoresCodes, "preview", "all codes equals the preview of none"),
        (PreviewWaitsForTheEnd, "preview", "63 codes equals the preview of none"),
        (PreviewNeverSharpens, "preview", "not their picture"),
        (FillsAndClamps, "illegal codes", "a code -1"),
        (FillsIncomplete, "illegal codes", "incomplete codes"),
        (IgnoresTheSeed, "seeds", "same picture"),
        (NoiseWithoutSeed, "determinism", "pixels differ"),
        (NoShortPrefixes, "prefixes", "ValueError"),
        (PrefixNotLookedAt, "prefixes", "the same picture"),
        (OneLengthForAll, "lengths", "encode(length=2) gave Ordered(length=4)"),
        (AnyLength, "lengths", "length=0"),
    ],
)
def test_fault_is_caught(faulty: type[AbstractVisualTokenizer], name: str, found: str) -> None:
    (result,) = check(faulty, only=[name]).failures
    assert result.name == name
    assert found in result.found
    assert result.remedy


@pytest.mark.parametrize("honest", [Decoding, Noisy, Stripes])
def test_honest_tokenizers_pass(honest: type[AbstractVisualTokenizer]) -> None:
    report = check(honest, skip=("imports", "fresh process", "speed"))
    assert report.is_passed, report.to_text()
