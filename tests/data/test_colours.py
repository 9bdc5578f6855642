"""Colour names of pixels, and white that is background or not."""

from __future__ import annotations

import pytest
from PIL import Image

from mmgen.data.colours import COLOUR_NAMES, colour_shares, dominant_colours


@pytest.mark.parametrize(
    ("colour", "name"),
    [
        ((220, 30, 30), "red"),
        ((250, 140, 20), "orange"),
        ((252, 215, 40), "yellow"),
        ((50, 160, 60), "green"),
        ((40, 90, 220), "blue"),
        ((130, 50, 180), "purple"),
        ((245, 120, 180), "pink"),
        ((120, 75, 40), "brown"),
        ((240, 210, 180), "beige"),
        ((15, 15, 18), "black"),
        ((130, 130, 132), "gray"),
    ],
)
def test_names_plain_colours(colour: tuple[int, int, int], name: str) -> None:
    assert colour_shares(Image.new("RGB", (40, 40), colour)) == {name: 1.0}
    assert name in COLOUR_NAMES


def test_white_around_does_not_count_but_white_inside_does() -> None:
    picture = Image.new("RGB", (64, 64), (255, 255, 255))
    assert colour_shares(picture) == {}
    picture.paste((220, 30, 30), (16, 16, 48, 48))
    assert colour_shares(picture) == {"red": 1.0}
    picture.paste((255, 255, 255), (24, 24, 40, 40))
    assert colour_shares(picture) == {"red": 0.75, "white": 0.25}
    assert dominant_colours(picture) == ("red", "white")


def test_small_parts_are_not_dominant() -> None:
    picture = Image.new("RGB", (32, 32), (40, 90, 220))
    picture.paste((220, 30, 30), (0, 0, 8, 8))
    assert dominant_colours(picture) == ("blue",)
    assert dominant_colours(picture, min_share=0.05) == ("blue", "red")
