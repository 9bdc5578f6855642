"""Measuring tokenizers, with the one that needs no weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import pytest
from PIL import Image

from mmgen.evaluate.pack import EmojiRow
from mmgen.evaluate.progress import unwatched
from mmgen.evaluate.tokenizer import at_nearest_size, bits_of, codebook_use, evaluate_tokenizer
from mmgen.plugins import load_visual_tokenizer_class
from mmgen.visual_tokenizer import AbstractVisualTokenizer, Codes, Grid


@pytest.fixture(scope="module")
def palette() -> AbstractVisualTokenizer:
    return load_visual_tokenizer_class("palette").load()


def open_all(rows: Sequence[EmojiRow]) -> list[Image.Image]:
    return [row.open() for row in rows]


def test_report_of_known_pictures(palette: AbstractVisualTokenizer, rows: list[EmojiRow]) -> None:
    report, sheet = evaluate_tokenizer(
        palette, "palette", open_all(rows[:9]), progress=unwatched, batch_size=4
    )
    assert report.num_pictures == 9
    assert report.tokens_per_picture == 64
    assert report.bits_per_picture == 64 * 8
    assert 10 < report.psnr < 30
    assert 0 < report.ssim < 1
    assert report.codebooks[0].size == 256
    assert 0 < report.codebooks[0].share < 0.5
    assert [codec.name.split(",")[0] for codec in report.codecs] == ["WebP"] * 2 + ["JPEG"] * 2
    assert sheet.width > 8 * 64
    assert "palette (64 tokens, 512 bits)" in report.markdown()
    json.dumps(asdict(report), allow_nan=False)


def test_pictures_the_tokenizer_draws_exactly_score_highest(
    palette: AbstractVisualTokenizer,
) -> None:
    layout = palette.spec.layouts[0]
    array = np.arange(layout.num_positions)[:, np.newaxis] % 216
    exact = palette.decode([Codes(array, layout)])[0]
    picture = Image.fromarray((exact * 255 + 0.5).astype(np.uint8))
    report, _ = evaluate_tokenizer(palette, "palette", [picture], progress=unwatched)
    assert report.psnr > 60
    assert report.ssim == pytest.approx(1.0, abs=1e-4)


def test_a_picture_takes_the_size_nearest_in_aspect_then_area(
    palette: AbstractVisualTokenizer,
) -> None:
    sizes = {
        source: at_nearest_size(Image.new("RGB", source), palette).shape[:2]
        for source in ((64, 64), (1000, 1000), (20, 20), (300, 200), (200, 300))
    }
    assert sizes[64, 64] == (64, 64)
    assert sizes[1000, 1000] == (128, 128)
    assert sizes[20, 20] == (32, 32)
    assert sizes[300, 200] == (64, 96)
    assert sizes[200, 300] == (96, 64)


def test_codebook_use_counts_shares_and_perplexity() -> None:
    codes = Codes(np.array([[0, 1], [0, 1], [1, 1], [1, 1]]), Grid(2, 2))
    first, second = codebook_use([codes, codes], (4, 8))
    assert (first.size, first.share, second.share) == (4, 0.5, 0.125)
    assert first.perplexity == pytest.approx(2.0)
    assert second.perplexity == pytest.approx(1.0)


def test_bits_sum_over_codebooks() -> None:
    codes = Codes(np.zeros((4, 2), dtype=np.int64), Grid(2, 2))
    assert bits_of(codes, (1024, 4)) == 4 * 12
