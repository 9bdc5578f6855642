"""Drawn shapes: the same every time, and what their attributes say they are."""

from __future__ import annotations

import pytest
from PIL import Image

from mmgen.data.colours import dominant_colours
from mmgen.data.shapes import ShapesSource
from mmgen.data.sources import Row
from mmgen.errors import SettingsError


def drawn(row: Row) -> Image.Image:
    assert isinstance(row.picture, Image.Image)
    return row.picture


def test_rows_depend_on_seed_and_index_alone() -> None:
    one, two = ShapesSource(3, 50), ShapesSource(3, 9)
    for index in (8, 0, 3):
        assert one.row(index).attributes == two.row(index).attributes
        assert drawn(one.row(index)).tobytes() == drawn(two.row(index)).tobytes()
    other = ShapesSource(4, 50)
    rows = range(20)
    assert [one.attributes(i) for i in rows] != [other.attributes(i) for i in rows]


def test_pictures_show_the_colour_that_they_say() -> None:
    source = ShapesSource(1, 60)
    for index in range(60):
        row = source.row(index)
        if row.attributes["background"] == "white":
            assert row.attributes["colour"] in dominant_colours(drawn(row)), row.attributes


def test_captions_name_the_shape() -> None:
    source = ShapesSource(0, 40)
    for index in range(40):
        row = source.row(index)
        assert len(row.captions) >= 3
        assert all(row.attributes["name"] in caption for caption in row.captions)
        assert row.attributes["shape"] in row.attributes["phrase"]
        assert row.attributes["background"] in row.captions[0]


def test_every_kind_comes_up() -> None:
    source = ShapesSource(0, 400)
    rows = [source.attributes(index) for index in range(400)]
    assert len({row["shape"] for row in rows}) == 8
    assert len({row["colour"] for row in rows}) == 10
    assert {row["count"] for row in rows} == {"one", "two", "three"}
    assert all(("size" in row) == (row["count"] == "one") for row in rows)
    phrases = {row["phrase"] for row in rows}
    assert any(phrase.startswith("an orange ") for phrase in phrases)
    assert any(phrase.startswith("two ") and phrase.endswith(" crosses") for phrase in phrases)


def test_picture_size() -> None:
    assert drawn(ShapesSource(0, 1, picture_size=24).row(0)).size == (24, 24)
    with pytest.raises(SettingsError, match="picture_size"):
        ShapesSource(0, 1, picture_size=4)
    with pytest.raises(SettingsError, match="count"):
        ShapesSource(0, 0)
