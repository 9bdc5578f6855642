"""The similarity that training sees is the one that evaluation measures."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmgen.autoencoding import structural_similarity
from mmgen.evaluate.metrics import ssim
from mmgen.testing import draw_picture
from mmgen.visual_tokenizer import Picture


def batch(pictures: list[Picture]) -> torch.Tensor:
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)


def test_it_is_the_similarity_that_is_measured() -> None:
    first = [draw_picture((24, 32), seed=seed) for seed in range(3)]
    noise = np.random.default_rng(0).normal(0, 0.1, (3, 24, 32, 3))
    second = [np.clip(a + n, 0, 1).astype(np.float32) for a, n in zip(first, noise, strict=True)]
    found = structural_similarity(batch(first), batch(second))
    for value, a, b in zip(found.tolist(), first, second, strict=True):
        assert value == pytest.approx(ssim(a, b), abs=2e-4)


def test_equal_pictures_are_alike_and_gradients_lead_there() -> None:
    images = batch([draw_picture((16, 16), seed=0)])
    assert structural_similarity(images, images).item() == pytest.approx(1.0)
    drawn = (images * 0.5).requires_grad_()
    before = structural_similarity(drawn, images)
    before.backward()  # type: ignore[no-untyped-call]
    assert drawn.grad is not None
    after = structural_similarity(drawn + 0.5 * drawn.grad, images)
    assert after.item() > before.item()
