"""Changed pictures are pictures, and the same seed changes them alike."""

from __future__ import annotations

import torch

from mmgen.autoencoding.augmentation import augmented


def test_augmentation_keeps_shape_and_range_and_changes_every_picture() -> None:
    generator = torch.Generator().manual_seed(0)
    batch = torch.rand(8, 3, 16, 16, generator=generator)
    changed = augmented(batch, torch.Generator().manual_seed(1))
    assert changed.shape == batch.shape
    assert 0 <= float(changed.min()) and float(changed.max()) <= 1
    assert all(not torch.equal(a, b) for a, b in zip(batch, changed, strict=True))
    assert torch.equal(changed, augmented(batch, torch.Generator().manual_seed(1)))
