"""JPEG and WebP as yardsticks."""

from __future__ import annotations

import numpy as np
import pytest

from mmgen.evaluate.image_codecs import Format, compressed, yardsticks
from mmgen.evaluate.pack import EmojiRow
from mmgen.pictures import to_array
from mmgen.visual_tokenizer import Picture


def pictures(rows: list[EmojiRow]) -> list[Picture]:
    return [to_array(row.open(), (64, 64), "crop") for row in rows[::9]]


@pytest.mark.parametrize("form", ["JPEG", "WEBP"])
def test_the_smallest_and_the_nearest_quality_are_found(rows: list[EmojiRow], form: Format) -> None:
    items = pictures(rows)
    sizes = {
        quality: float(np.mean([len(compressed(item, form, quality)) for item in items]))
        for quality in (0, 5, 80)
    }
    smallest, nearest = yardsticks(items, form, sizes[80] + 0.25)
    assert smallest.bytes_per_picture <= min(sizes.values())
    assert nearest.bytes_per_picture == sizes[80]
    assert nearest.psnr > smallest.psnr
    assert nearest.name.endswith("nearest size")


def test_a_budget_below_every_file_gives_the_smallest_twice(rows: list[EmojiRow]) -> None:
    smallest, nearest = yardsticks(pictures(rows), "WEBP", 1.0)
    assert smallest.name == "WebP, smallest"
    assert smallest.quality == nearest.quality
