"""Captioned coloured shapes, drawn here: data of tests and of first steps, under no licence.

Row `index` of seed `seed` is always the same picture with the same captions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from random import Random
from typing import TypeAlias

from PIL import Image, ImageDraw

from mmgen.data.sources import AbstractSource, Row
from mmgen.errors import SettingsError

__all__ = ["ShapesSource"]

_COLOURS = {
    "red": (222, 32, 38),
    "orange": (245, 136, 20),
    "yellow": (250, 214, 30),
    "green": (44, 160, 60),
    "blue": (36, 86, 216),
    "purple": (134, 54, 180),
    "pink": (246, 120, 178),
    "brown": (124, 76, 40),
    "black": (20, 20, 24),
    "gray": (132, 134, 140),
}
_BACKGROUNDS = {
    "white": (255, 255, 255),
    "light blue": (206, 230, 250),
    "light green": (214, 242, 210),
    "light yellow": (252, 246, 206),
}
_SIZES = {"small": 0.16, "medium": 0.25, "large": 0.36}
_COUNTS = {1: "a", 2: "two", 3: "three"}
_POSITIONS = {
    "center": (0.5, 0.5),
    "top left": (0.3, 0.3),
    "top right": (0.7, 0.3),
    "bottom left": (0.3, 0.7),
    "bottom right": (0.7, 0.7),
}
_PLACES = {
    1: ((0.5, 0.5),),
    2: ((0.27, 0.5), (0.73, 0.5)),
    3: ((0.5, 0.27), (0.26, 0.7), (0.74, 0.7)),
}
_SUPERSAMPLING = 4

_Points: TypeAlias = list[tuple[float, float]]


def _polygon(corners: int, turn: float = 0.0, inner: float = 1.0) -> _Points:
    """Corners around the unit circle, from the top; a star if every other is pulled inwards."""
    points = []
    for number in range(corners):
        angle = 2 * math.pi * (number / corners + turn) - math.pi / 2
        radius = inner if number % 2 else 1.0
        points.append((radius * math.cos(angle), radius * math.sin(angle)))
    return points


def _heart() -> _Points:
    points = []
    for number in range(48):
        t = 2 * math.pi * number / 48
        x = 16 * math.sin(t) ** 3
        y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        points.append((x / 17, -y / 17))
    return points


_OUTLINES: Mapping[str, Callable[[], _Points]] = {
    "circle": lambda: _polygon(64),
    "square": lambda: _polygon(4, turn=1 / 8),
    "triangle": lambda: _polygon(3),
    "diamond": lambda: [(0, -1), (0.65, 0), (0, 1), (-0.65, 0)],
    "star": lambda: _polygon(10, inner=0.45),
    "heart": _heart,
    "hexagon": lambda: _polygon(6, turn=1 / 12),
    "cross": lambda: [
        (-0.33, -1), (0.33, -1), (0.33, -0.33), (1, -0.33), (1, 0.33), (0.33, 0.33),
        (0.33, 1), (-0.33, 1), (-0.33, 0.33), (-1, 0.33), (-1, -0.33), (-0.33, -0.33),
    ],
}  # fmt: skip


class ShapesSource(AbstractSource):
    """One to three shapes of one colour on a plain background."""

    def __init__(self, seed: int, count: int, *, picture_size: int = 64) -> None:
        """Choose the rows.

        Args:
            seed: gives other rows.
            count: number of rows.
            picture_size: height and width in pixels.
        """
        if count < 1 or picture_size < 8:
            raise SettingsError(
                f"count must be positive and picture_size 8 or more, got {count}, {picture_size}"
            )
        self._seed = seed
        self._count = count
        self._size = picture_size

    @property
    def num_rows(self) -> int:
        return self._count

    @property
    def description(self) -> Mapping[str, object]:
        return {
            "kind": "shapes",
            "seed": self._seed,
            "count": self._count,
            "picture_size": self._size,
        }

    def row(self, index: int) -> Row:
        attributes = self.attributes(index)
        return Row(
            id=f"shapes/{self._seed}/{index}",
            picture=_draw(attributes, self._size),
            captions=_captions(attributes),
            attributes=attributes,
        )

    def attributes(self, index: int) -> Mapping[str, str]:
        rng = Random(f"shapes/{self._seed}/{index}")
        shape = rng.choice(list(_OUTLINES))
        colour = rng.choice(list(_COLOURS))
        count = rng.choices((1, 2, 3), (6, 2, 2))[0]
        background = rng.choice(list(_BACKGROUNDS)) if rng.random() < 0.3 else "white"
        name = f"{colour} {shape}"
        article = "an" if colour == "orange" else "a"
        plural = name + ("es" if shape == "cross" else "s")
        attributes = {
            "name": name if count == 1 else plural,
            "phrase": f"{article} {name}" if count == 1 else f"{_COUNTS[count]} {plural}",
            "kind": "shape",
            "shape": shape,
            "colour": colour,
            "count": ("one", "two", "three")[count - 1],
            "background": background,
        }
        if count == 1:
            attributes["size"] = rng.choice(list(_SIZES))
            attributes["position"] = rng.choice(list(_POSITIONS))
        return attributes


def _captions(attributes: Mapping[str, str]) -> tuple[str, ...]:
    phrase, background = attributes["phrase"], attributes["background"]
    start = phrase[0].upper() + phrase[1:]
    ground = f"on a {background} background"
    captions = [f"{start} {ground}.", f"A picture of {phrase}."]
    if "size" in attributes:
        size, place = attributes["size"], f"in the {attributes['position']}"
        captions.append(f"A {size} {attributes['name']} {place}, {ground}.")
        captions.append(f"{start} {place}.")
    else:
        captions.append(f"{start}, {ground}.")
    return tuple(captions)


def _draw(attributes: Mapping[str, str], size: int) -> Image.Image:
    side = size * _SUPERSAMPLING
    picture = Image.new("RGB", (side, side), _BACKGROUNDS[attributes["background"]])
    draw = ImageDraw.Draw(picture)
    count = ("one", "two", "three").index(attributes["count"]) + 1
    places = _PLACES[count]
    radius = 0.2
    if "size" in attributes:
        radius = _SIZES[attributes["size"]]
        x, y = _POSITIONS[attributes["position"]]
        places = ((_inside(x, radius), _inside(y, radius)),)
    outline = _OUTLINES[attributes["shape"]]()
    for x, y in places:
        points = [(side * (x + radius * px), side * (y + radius * py)) for px, py in outline]
        draw.polygon(points, fill=_COLOURS[attributes["colour"]])
    return picture.resize((size, size), Image.Resampling.BOX)


def _inside(centre: float, radius: float) -> float:
    """Move a centre so that the shape stays within the picture."""
    return min(max(centre, radius + 0.03), 0.97 - radius)
