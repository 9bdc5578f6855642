"""What captions are worth: the right ones more than none, and none more than wrong ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from mmgen.authoring.starting_points import ordered
from mmgen.evaluate.comparison import compare
from mmgen.evaluate.findings import Findings
from mmgen.evaluate.progress import unwatched
from mmgen.evaluate.words import caption_points, tried_lengths
from mmgen.evaluate.yardstick import Candidate, measure
from mmgen.pictures import to_picture
from mmgen.testing import draw_picture
from mmgen.visual_tokenizer import Codes, Picture, VisualTokenizerSpec
from mmgen_palette import PaletteTokenizer


class Reads(PaletteTokenizer):
    """Draws half as bright what a caption calls dark, after encoding it twice as bright."""

    @property
    def spec(self) -> VisualTokenizerSpec:
        return replace(super().spec, captions_used=frozenset({"encode", "decode"}))

    def encode(
        self,
        images: Sequence[Picture],
        *,
        length: int | None = None,
        quality: float | None = None,
        captions: Sequence[str] | None = None,
    ) -> list[Codes]:
        factors = [2 if caption == "dark" else 1 for caption in captions or [""] * len(images)]
        return super().encode(
            [np.minimum(1, image * by) for image, by in zip(images, factors, strict=True)]
        )

    def decode(
        self,
        codes: Sequence[Codes],
        *,
        seed: int | None = None,
        steps: int | None = None,
        captions: Sequence[str] | None = None,
    ) -> list[Picture]:
        factors = [2 if caption == "dark" else 1 for caption in captions or [""] * len(codes)]
        return [
            (drawn / by).astype(np.float32)
            for drawn, by in zip(super().decode(codes), factors, strict=True)
        ]


BRIGHT = [draw_picture((64, 64), seed=seed) for seed in range(4)]
PICTURES = [*BRIGHT, *((picture / 2).astype(np.float32) for picture in BRIGHT)]
CAPTIONS = ["bright"] * 4 + ["dark"] * 4


def test_the_right_caption_is_worth_most() -> None:
    points = caption_points(Reads(), PICTURES, CAPTIONS, unwatched)
    psnr = {point.words: point.psnr for point in points}
    assert [point.tokens for point in points] == [64] * 3
    assert psnr["its own"] > psnr["another's"] + 3
    assert psnr["none"] > psnr["another's"] + 3


def test_powers_of_two_stand_for_many_lengths() -> None:
    assert tried_lengths(ordered.StartTokenizer()) == [1, 2, 4, 8, 16, 32, 64]
    assert tried_lengths(PaletteTokenizer())[-1] == 256


def test_captions_reach_every_figure_and_are_told_of() -> None:
    candidates = [
        Candidate(name=name, tokenizer=kind(), num_parameters=None)
        for name, kind in (("reads", Reads), ("palette", PaletteTokenizer))
    ]
    pictures = [to_picture(picture) for picture in PICTURES]
    told, silent = (
        measure(
            candidates[0],
            pictures,
            judge=None,
            code_model=None,
            progress=unwatched,
            speed_seconds=0.0,
            findings=Findings(None),
            captions=captions,
        ).figures
        for captions in (CAPTIONS, None)
    )
    assert told.psnr == pytest.approx(told.words[0].psnr)
    assert told.rate[0].psnr == pytest.approx(told.psnr)
    assert silent.words == () and silent.psnr == pytest.approx(told.words[1].psnr)
    assert told.damage[0].psnr != silent.damage[0].psnr
    comparison, _ = compare(
        candidates[:1], pictures, judge=None, code_model=None, progress=unwatched, captions=CAPTIONS
    )
    text = comparison.markdown()
    assert "## Captions of reads" in text and "PSNR dB, another's" in text
    assert "--caption-column" not in text
