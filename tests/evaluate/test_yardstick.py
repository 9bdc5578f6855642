"""What tokenizers are compared by: exact where the answer is known, ordered where it is not."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mmgen.authoring.starting_points import grid, ordered
from mmgen.evaluate.comparison import compare, page
from mmgen.evaluate.feature_distance import frechet_distance
from mmgen.evaluate.glyphs import SIGN_SIZES, read_signs, sign_picture, sign_scores
from mmgen.evaluate.metrics import detail_psnr, ms_ssim, num_scales, ssim
from mmgen.evaluate.progress import unwatched
from mmgen.evaluate.robustness import corrupted, robustness
from mmgen.evaluate.yardstick import Candidate
from mmgen.pictures import to_picture
from mmgen.testing import draw_picture, psnr
from mmgen.visual_tokenizer import Codes, Grid, Picture
from mmgen_palette import PaletteTokenizer

PICTURES = [draw_picture((64, 64), seed=seed) for seed in range(6)]


def noisy(picture: Picture, strength: float) -> Picture:
    noise = np.random.default_rng(0).normal(0, strength, picture.shape)
    return np.clip(picture + noise, 0, 1).astype(np.float32)


def test_ms_ssim_of_equal_pictures_is_one_and_falls_with_noise() -> None:
    picture = PICTURES[1]
    assert ms_ssim(picture, picture) == pytest.approx(1.0)
    values = [ms_ssim(picture, noisy(picture, strength)) for strength in (0.02, 0.1, 0.3)]
    assert values == sorted(values, reverse=True)


def test_ms_ssim_of_one_scale_is_ssim() -> None:
    one, other = draw_picture((16, 20), seed=1), noisy(draw_picture((16, 20), seed=1), 0.1)
    assert num_scales(16, 20) == 1
    # Channels are averaged before or after; with one scale and positive terms it is the same.
    assert ms_ssim(one, other) == pytest.approx(ssim(one, other), abs=1e-9)


def test_scales_are_as_many_as_fit() -> None:
    assert [num_scales(side, 500) for side in (10, 11, 22, 64, 176, 400)] == [0, 1, 2, 3, 5, 5]
    with pytest.raises(ValueError, match="11 pixels or more"):
        ms_ssim(PICTURES[0][:8], PICTURES[0][:8])


def test_detail_is_where_a_picture_changes() -> None:
    picture = np.ones((40, 40, 3), dtype=np.float32)
    picture[18:22] = 0
    flat, edge = picture.copy(), picture.copy()
    flat[:4] -= 0.5
    edge[18:22] += 0.5
    assert detail_psnr(picture, flat) == 100
    assert detail_psnr(picture, edge) < psnr(picture, edge) < 40


@pytest.mark.parametrize("size", SIGN_SIZES)
def test_signs_of_originals_are_read_without_a_mistake(size: int) -> None:
    for seed in range(4):
        picture, signs = sign_picture((64, 64), size, seed=seed)
        assert read_signs(picture, size) == signs


def test_signs_that_are_gone_are_not_read() -> None:
    _, signs = sign_picture((64, 64), 8, seed=0)
    read = read_signs(np.full((64, 64, 3), 0.5, dtype=np.float32), 8)
    assert np.mean([a == b for a, b in zip(read, signs, strict=True)]) < 0.15


def test_larger_signs_survive_blocks_better() -> None:
    scores = sign_scores(PaletteTokenizer(), progress=unwatched)
    assert [score.size for score in scores] == list(SIGN_SIZES)
    assert scores[-1].share > scores[0].share


def test_frechet_distance_of_known_distributions() -> None:
    random = np.random.default_rng(0)
    first = random.normal(0, 1, (20000, 3))
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-9)
    moved = frechet_distance(first, first + np.array([3.0, 0, 0]))
    assert moved == pytest.approx(9, rel=1e-6)
    # Equal means, deviations 1 and 2: (2 - 1) ** 2 in each of three directions.
    assert frechet_distance(first, first * 2) == pytest.approx(3, rel=0.05)


def test_a_share_of_codes_is_replaced_by_others() -> None:
    palette = PaletteTokenizer()
    codes = Codes(np.full((64, 1), 7), Grid(8, 8))
    random = np.random.default_rng(0)
    wrong = [corrupted(codes, palette, 0.25, None, random) for _ in range(64)]
    changed = np.mean([(item.array != 7).mean() for item in wrong])
    assert changed == pytest.approx(0.25, abs=0.03)
    assert corrupted(codes, palette, 1.0, None, random).array.min() >= 0
    assert not (corrupted(codes, palette, 1.0, None, random).array == 7).any()
    assert corrupted(codes, palette, 0.0, None, random) == codes
    assert (codes.array == 7).all()


def test_near_codes_harm_less_than_any() -> None:
    palette = PaletteTokenizer()
    codes = palette.encode(PICTURES)
    damage = robustness(palette, PICTURES, codes, seed=0, progress=unwatched)
    near = [item.psnr for item in damage if item.corruption == "near"]
    any_ = [item.psnr for item in damage if item.corruption == "any"]
    assert near == sorted(near, reverse=True) and any_ == sorted(any_, reverse=True)
    assert all(a > b for a, b in zip(near, any_, strict=True))


def test_tokenizers_stand_in_one_table_and_on_one_page() -> None:
    candidates = [
        Candidate(name="blocks", tokenizer=grid.StartTokenizer(), num_parameters=None),
        Candidate(name="waves", tokenizer=ordered.StartTokenizer(), num_parameters=12),
    ]
    pictures = [to_picture(picture) for picture in PICTURES]
    comparison, measured = compare(
        candidates, pictures, judge=None, code_model=None, progress=unwatched
    )
    blocks, waves = comparison.tokenizers
    assert blocks.psnr == pytest.approx(
        np.mean(
            [psnr(a, b) for a, b in zip(measured[0].originals, measured[0].decoded, strict=True)]
        )
    )
    assert [point.tokens for point in waves.rate] == [1, 2, 4, 8, 16, 32, 64]
    assert waves.rate[-1].psnr == pytest.approx(waves.psnr)
    assert waves.rate[0].psnr < waves.rate[3].psnr < waves.rate[-1].psnr
    assert len(blocks.rate) == 1
    book = blocks.codebooks[0]
    assert book.num_dead == 512 - round(512 * book.used)
    assert 2**book.entropy == pytest.approx(book.perplexity)
    assert blocks.entropy_bits_per_picture < blocks.bits_per_picture
    text = comparison.markdown()
    assert "| blocks | 64 | 576 |" in text and "- JPEG, quality" in text
    assert "LPIPS and rFID" in text and "--judge" in text and "--with-lm" in text
    # Both saw pictures of one size, so that codecs were measured once.
    assert {curve.tokenizers for curve in comparison.codecs} == {("blocks", "waves")}
    assert page(measured).height > 3 * 64
    json.dumps(comparison.as_json(), allow_nan=False)
