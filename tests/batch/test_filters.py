from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from mmgen.batch.filters import FilteredReader, PictureFilter, Seen, likeness
from mmgen.batch.readers import open_reader
from mmgen.errors import SettingsError


def noise(seed: int, size: tuple[int, int] = (64, 48)) -> Image.Image:
    """A picture of some large spots."""
    spots = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(spots).resize(size, Image.Resampling.BICUBIC)


def jpeg(picture: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return Image.open(io.BytesIO(buffer.getvalue())).convert("RGB")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "pictures"
    place.mkdir()
    noise(0).save(place / "a.png")
    noise(0).save(place / "b-same.png")
    noise(1, (200, 40)).save(place / "c-long.png")
    noise(2, (20, 20)).save(place / "d-small.png")
    jpeg(noise(0), 80).resize((96, 72)).save(place / "e-alike.png")
    (place / "f-broken.png").write_bytes(b"nothing")
    noise(3).save(place / "g.png")
    return place


def kept(folder: Path, rules: PictureFilter) -> tuple[list[str], dict[str, int]]:
    reader = FilteredReader(open_reader(str(folder), meaning="picture"), rules)
    rows = list(reader.rows())
    assert [row.index for row in rows] == list(range(len(rows)))
    assert rows == list(reader.rows())
    return [row.id[0] for row in rows], dict(reader.left_out)


def test_only_what_fits_stays_and_what_cannot_be_read_is_left_to_the_job(folder: Path) -> None:
    assert kept(folder, PictureFilter()) == (list("abcdefg"), {})
    assert kept(folder, PictureFilter(min_side=30)) == (
        list("abcefg"),
        {"a side below 30 pixels": 1},
    )
    assert kept(folder, PictureFilter(max_aspect=2)) == (
        list("abdefg"),
        {"an aspect above 2": 1},
    )
    assert kept(folder, PictureFilter(duplicates="same")) == (
        list("acdefg"),
        {"the same picture": 1},
    )
    names, reasons = kept(folder, PictureFilter(duplicates="alike", min_side=30, max_aspect=4))
    assert names == list("afg") and sum(reasons.values()) == 4


def png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def test_copies_that_were_changed_a_little_look_alike_and_other_pictures_do_not() -> None:
    seen = Seen("alike")
    assert [seen.doubles(png(noise(seed, (256, 192)))) for seed in range(20)] == [None] * 20
    for seed in range(20):
        picture = noise(seed, (256, 192))
        for copy in (
            jpeg(picture, 60),
            picture.resize((100, 75)),
            picture.filter(ImageFilter.GaussianBlur(1)),
        ):
            assert seen.doubles(png(copy)) == "a picture that looks alike"
        assert seen.doubles(png(picture)) == "the same picture"
    plain = Seen("alike")
    colours = ("red", "blue", "white")
    assert [plain.doubles(png(Image.new("RGB", (9, 9), item))) for item in colours] == [None] * 3
    assert likeness(Image.new("RGB", (9, 9), "red")) == (0, (255, 0, 0))


def test_bad_rules_are_refused() -> None:
    with pytest.raises(SettingsError, match="the shortest side must be 0 or more"):
        PictureFilter(min_side=-1)
    with pytest.raises(SettingsError, match="the aspect must be 1 or more"):
        PictureFilter(max_aspect=0.5)
