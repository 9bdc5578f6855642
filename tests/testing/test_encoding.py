"""Each check of `spec` and `encode` catches its fault, and says so by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from mmgen.testing import check
from mmgen.visual_tokenizer import (
    AbstractVisualTokenizer,
    Codes,
    Grid,
    Picture,
    VisualTokenizerSpec,
)
from mmgen_palette import PaletteTokenizer


class Encoding(PaletteTokenizer):
    """A palette whose `encode` a fault can replace."""

    def encode(
        self,
        images: Sequence[Picture],
        *,
        length: int | None = None,
        quality: float | None = None,
        captions: Sequence[str] | None = None,
    ) -> list[Codes]:
        honest = super().encode(images, length=length, quality=quality, captions=captions)
        return self.change(images, honest)

    def change(self, images: Sequence[Picture], codes: list[Codes]) -> list[Codes]:
        return codes


class OutOfRange(Encoding):
    def change(self, images: Sequence[Picture], codes: list[Codes]) -> list[Codes]:
        return [Codes(item.array + 100, item.layout) for item in codes]


class NarrowIntegers(Encoding):
    def change(self, images: Sequence[Picture], codes: list[Codes]) -> list[Codes]:
        return [Codes(item.array.astype(np.uint8), item.layout) for item in codes]


class TwoCodebooks(Encoding):
    def change(self, images: Sequence[Picture], codes: list[Codes]) -> list[Codes]:
        return [Codes(np.repeat(item.array, 2, axis=1), item.layout) for item in codes]


class Incomplete(Encoding):
    def change(self, images: Sequence[Picture], codes: list[Codes]) -> list[Codes]:
        return [Codes(item.array[:-1], item.layout) for item in codes]


class UnlistedLayout(Encoding):
    def change(self, images: Sequence[Picture], codes: list[Codes]) -> list[Codes]:
        return [Codes(item.array, Grid(1, len(item.array))) for item in codes]


class OneTooFew(Encoding):
    def change(self, images: Sequence[Picture], codes: list[Codes]) -> list[Codes]:
        return codes[1:]


class BatchStatistics(Encoding):
    def change(self, images: Sequence[Picture], codes: list[Codes]) -> list[Codes]:
        return [Codes((item.array + len(images)) % 256, item.layout) for item in codes]


class ReorderedBySize(Encoding):
    def change(self, images: Sequence[Picture], codes: list[Codes]) -> list[Codes]:
        return sorted(codes, key=lambda item: len(item.array))


class Unsteady(Encoding):
    calls = 0

    def change(self, images: Sequence[Picture], codes: list[Codes]) -> list[Codes]:
        self.calls += 1
        return [Codes((item.array + self.calls) % 256, item.layout) for item in codes]


class ChangesItsInput(Encoding):
    def change(self, images: Sequence[Picture], codes: list[Codes]) -> list[Codes]:
        for image in images:
            image *= 0.5
        return codes


class NeedsAPicture(Encoding):
    def change(self, images: Sequence[Picture], codes: list[Codes]) -> list[Codes]:
        assert np.stack([item.array.mean() for item in codes]).size
        return codes


class Resizes(PaletteTokenizer):
    def encode(
        self,
        images: Sequence[Picture],
        *,
        length: int | None = None,
        quality: float | None = None,
        captions: Sequence[str] | None = None,
    ) -> list[Codes]:
        return super().encode([np.resize(image, (64, 64, 3)) for image in images])


class PromisesMoreSizes(PaletteTokenizer):
    @property
    def spec(self) -> VisualTokenizerSpec:
        honest = super().spec
        return dataclasses.replace(honest, layouts=(*honest.layouts, Grid(3, 3)))


class NewSpecEachTime(PaletteTokenizer):
    looks = 0

    @property
    def spec(self) -> VisualTokenizerSpec:
        self.looks += 1
        return dataclasses.replace(super().spec, min_psnr=14.0 - self.looks)


class ShortTable(PaletteTokenizer):
    def code_vectors(self, codebook: int) -> npt.NDArray[np.float32]:
        return super().code_vectors(codebook)[:-1]


class InfiniteTable(PaletteTokenizer):
    def code_vectors(self, codebook: int) -> npt.NDArray[np.float32]:
        return super().code_vectors(codebook) / np.float32(np.inf) * np.float32(np.nan)


@pytest.mark.parametrize(
    ("faulty", "name", "found"),
    [
        (OutOfRange, "codes", "codebook 0 has 256 codes"),
        (NarrowIntegers, "codes", "uint8"),
        (TwoCodebooks, "codes", "expected int64 [64, 1]"),
        (Incomplete, "codes", "expected int64 [64, 1]"),
        (UnlistedLayout, "codes", "does not list"),
        (OneTooFew, "codes", "8 pictures gave 7 items"),
        (BatchStatistics, "batch independence", "codes differ"),
        (ReorderedBySize, "batch independence", "the layouts differ"),
        (Unsteady, "determinism", "codes differ"),
        (ChangesItsInput, "inputs unchanged", "changes the pictures"),
        (NeedsAPicture, "empty batch", "ValueError"),
        (Resizes, "illegal pictures", "takes a picture (65, 64)"),
        (Resizes, "illegal options", "length=1"),
        (PromisesMoreSizes, "sizes", "ValueError"),
        (NewSpecEachTime, "spec", "changes"),
        (ShortTable, "code vectors", "float32 [255, 3], expected float32 [256, dim]"),
        (InfiniteTable, "code vectors", "not finite"),
    ],
)
def test_fault_is_caught(faulty: type[AbstractVisualTokenizer], name: str, found: str) -> None:
    (result,) = check(faulty, only=[name]).failures
    assert result.name == name
    assert found in result.found
    assert result.remedy


def test_honest_subclass_passes_what_the_faulty_ones_fail() -> None:
    report = check(Encoding, skip=("imports", "fresh process", "speed"))
    assert report.is_passed, report.to_text()
