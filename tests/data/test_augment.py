"""Augmentation stays within its bounds and keeps white white."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from PIL import Image

from mmgen.data.augment import Augmentation, augmented
from mmgen.errors import SettingsError


def dot() -> Image.Image:
    picture = Image.new("RGB", (64, 64), (255, 255, 255))
    picture.paste((200, 40, 40), (28, 28, 36, 36))
    return picture


def centre(picture: Image.Image) -> tuple[float, float]:
    rows, columns = np.nonzero(np.asarray(picture)[:, :, 1] < 150)
    return float(columns.mean()), float(rows.mean())


def test_does_nothing_by_default() -> None:
    picture = dot()
    changed = augmented(picture, Augmentation(), Random(0))
    assert changed.tobytes() == picture.tobytes()
    never = Augmentation(share=0.0, max_shift=0.2)
    assert augmented(picture, never, Random(0)) is picture


def test_shifts_within_bounds() -> None:
    settings = Augmentation(max_shift=0.05)
    centres = [centre(augmented(dot(), settings, Random(seed))) for seed in range(40)]
    distances = [max(abs(x - 31.5), abs(y - 31.5)) for x, y in centres]
    assert max(distances) <= 0.05 * 64 + 0.7
    assert max(distances) > 1.5
    assert len(set(centres)) > 10


def test_zooms_about_the_middle() -> None:
    settings = Augmentation(max_zoom=0.5)
    sizes = []
    for seed in range(20):
        picture = augmented(dot(), settings, Random(seed))
        sizes.append(int((np.asarray(picture)[:, :, 1] < 150).sum()))
        assert max(abs(value - 31.5) for value in centre(picture)) < 0.7
        assert picture.getpixel((0, 0)) == (255, 255, 255)
    assert min(sizes) < 48 and max(sizes) > 100


def test_tints_colours_and_not_the_background() -> None:
    settings = Augmentation(max_brightness=0.3, max_hue=0.1)
    colours = set()
    for seed in range(10):
        picture = augmented(dot(), settings, Random(seed))
        assert picture.getpixel((0, 0)) == (255, 255, 255)
        colours.add(picture.getpixel((32, 32)))
    assert len(colours) == 10


def test_the_same_random_numbers_give_the_same_picture() -> None:
    settings = Augmentation(max_shift=0.1, max_zoom=0.1, max_brightness=0.1, max_hue=0.1)
    one, two = (augmented(dot(), settings, Random(5)) for _ in range(2))
    assert one.tobytes() == two.tobytes() != dot().tobytes()


@pytest.mark.parametrize("name", ["share", "max_shift", "max_zoom", "max_brightness", "max_hue"])
def test_refuses_values_out_of_range(name: str) -> None:
    with pytest.raises(SettingsError, match=name):
        Augmentation(**{name: 1.5})
    with pytest.raises(SettingsError, match="max_zoom"):
        Augmentation(max_zoom=1.0)
