"""Drawn pictures are legal, varied and the same everywhere; PSNR is what it says."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from mmgen.testing import draw_picture, psnr


@pytest.mark.parametrize("size", [(64, 64), (1, 1), (8, 120)])
def test_drawn_pictures_are_legal(size: tuple[int, int]) -> None:
    for seed in range(5):
        picture = draw_picture(size, seed=seed)
        assert picture.shape == (*size, 3)
        assert picture.dtype == np.float32
        assert 0 <= picture.min() and picture.max() <= 1


def test_drawn_pictures_differ_by_seed_alone() -> None:
    digests = [hashlib.sha256(draw_picture((32, 32), seed=s).tobytes()) for s in (0, 1, 2, 1)]
    assert len({digest.digest() for digest in digests}) == 3
    assert digests[1].digest() == digests[3].digest()


def test_drawn_pictures_have_edges() -> None:
    picture = draw_picture((64, 64), seed=0)
    assert np.abs(np.diff(picture, axis=0)).max() > 0.1


def test_psnr() -> None:
    black = np.zeros((4, 4, 3), dtype=np.float32)
    assert psnr(black, black) == 100.0
    assert psnr(black, black + np.float32(1.0)) == pytest.approx(0.0)
    assert psnr(black, black + np.float32(0.1)) == pytest.approx(20.0, abs=1e-4)
    assert psnr(black, black + np.float32(1e-7)) == 100.0
