"""JPEG and WebP as yardsticks."""

from __future__ import annotations

import numpy as np

from mmgen.evaluate.image_codecs import compressed, nearest, smallest
from mmgen.evaluate.pack import EmojiRow
from mmgen.pictures import to_array
from mmgen.visual_tokenizer import Picture


def pictures(rows: list[EmojiRow]) -> list[Picture]:
    return [to_array(row.open(), (64, 64), "crop") for row in rows[::9]]


def test_smallest_is_smaller_than_every_better_quality(rows: list[EmojiRow]) -> None:
    items = pictures(rows)
    for form in ("JPEG", "WEBP"):
        result = smallest(items, form)
        better = np.mean([len(compressed(item, form, 80)) for item in items])
        assert result.bytes_per_picture < better
        assert result.bytes_per_picture == np.mean(
            [len(compressed(item, form, result.quality)) for item in items]
        )


def test_nearest_finds_a_quality_by_its_size(rows: list[EmojiRow]) -> None:
    items = pictures(rows)
    wanted = float(np.mean([len(compressed(item, "WEBP", 80)) for item in items]))
    result = nearest(items, "WEBP", wanted)
    assert result.bytes_per_picture == wanted
    assert result.name == "WebP, nearest size"
    assert result.psnr > smallest(items, "WEBP").psnr
