"""Codecs beside tokenizers: curves from a sample, neighbours from all pictures."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmgen.authoring.starting_points import grid
from mmgen.evaluate import image_codecs
from mmgen.evaluate.comparison import Comparison, compare
from mmgen.evaluate.findings import Findings
from mmgen.evaluate.image_codecs import (
    CURVE_QUALITIES,
    QUALITIES,
    available_codecs,
    by_size,
    codec_point,
    curve_sample,
    nearest_in_size,
    qualities_beside,
)
from mmgen.evaluate.progress import unwatched
from mmgen.evaluate.yardstick import Candidate
from mmgen.pictures import to_picture
from mmgen.testing import draw_picture

PICTURES = [draw_picture((64, 64), seed=seed) for seed in range(6)]


def test_codecs_grow_with_quality_and_the_nearest_size_is_found() -> None:
    assert {"JPEG", "WEBP"} <= set(available_codecs())
    for form in available_codecs():
        every = by_size(codec_point(PICTURES, form, quality) for quality in QUALITIES)
        curve = by_size(codec_point(PICTURES, form, quality) for quality in CURVE_QUALITIES)
        sizes = [point.bytes_per_picture for point in every]
        assert sizes == sorted(sizes)
        assert curve[-1].psnr > curve[0].psnr
        assert nearest_in_size(curve, 1.0) == curve[0]
        assert qualities_beside(curve, 1.0) == ()
        # Few qualities and a search beside the nearest find what all qualities would.
        for size in (sizes[0], sizes[5] * 1.01, sizes[8], sizes[11] * 0.99, sizes[-1] * 3):
            beside = [codec_point(PICTURES, form, q) for q in qualities_beside(curve, size)]
            found, best = (nearest_in_size(points, size) for points in ([*curve, *beside], every))
            assert abs(math.log(found.bytes_per_picture / size)) == pytest.approx(
                abs(math.log(best.bytes_per_picture / size))
            )


def test_a_curve_is_of_some_pictures_that_are_always_the_same() -> None:
    pictures = [np.full((2, 2, 3), number, dtype=np.float32) for number in range(300)]
    chosen = [int(picture[0, 0, 0]) for picture in curve_sample(pictures)]
    assert len(set(chosen)) == image_codecs.CURVE_PICTURES
    assert chosen == sorted(chosen) and chosen != list(range(len(chosen)))
    assert chosen == [int(picture[0, 0, 0]) for picture in curve_sample(pictures)]
    assert len(curve_sample(pictures[:20])) == 20


def compared(pictures: list[Image.Image]) -> Comparison:
    candidate = Candidate(name="blocks", tokenizer=grid.StartTokenizer(), num_parameters=None)
    return compare([candidate], pictures, judge=None, code_model=None, progress=unwatched)[0]


def test_the_report_says_which_pictures_codecs_saw(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = [to_picture(picture) for picture in PICTURES]
    assert "are drawn from" not in compared(pictures).markdown()
    monkeypatch.setattr(image_codecs, "CURVE_PICTURES", 4)
    comparison = compared(pictures)
    assert {point.num_pictures for curve in comparison.codecs for point in curve.points} == {4}
    assert {near.point.num_pictures for near in comparison.nearest} == {6}
    assert "are drawn from 4 of the 6 pictures" in comparison.markdown()


def test_codecs_meet_the_pictures_once_for_all_tokenizers(tmp_path: Path) -> None:
    candidates = [
        Candidate(name=name, tokenizer=grid.StartTokenizer(), num_parameters=None)
        for name in ("one", "two", "three")
    ]
    taken_up: list[str] = []
    comparison, _ = compare(
        candidates,
        [to_picture(picture) for picture in PICTURES[:3]],
        judge=None,
        code_model=None,
        progress=unwatched,
        findings=Findings(tmp_path, on_taken_up=taken_up.append),
    )
    num_formats = len(available_codecs())
    assert len(comparison.codecs) == num_formats
    assert comparison.codecs[0].tokenizers == ("one", "two", "three")
    assert len(comparison.nearest) == 3 * num_formats
    # With so few pictures the sample is all of them, and the neighbours are on the curves.
    codecs = [path.name for path in tmp_path.iterdir() if "fidelity" not in path.name]
    assert len(codecs) == num_formats * len(CURVE_QUALITIES)
    assert len(taken_up) == num_formats
