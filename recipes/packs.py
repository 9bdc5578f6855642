"""What the recipes learn from: rows of the packs in one directory, `data`.

`emoji/emoji-64.parquet` has captioned 64x64 pictures, `photos/photos-*.parquet` labelled
photographs, and `stories/stories.parquet` texts to learn English from.
"""

from __future__ import annotations

from pathlib import Path

from mmgen.train.sources import ParquetConfig, TextConfig, WeightedSource

__all__ = ["PHOTOS", "emoji_pictures", "photo_pictures", "story_texts", "tokenizer_pictures"]

PHOTOS = ("clothing", "flowers", "grocery", "trash")
"""The packs of photographs."""


def emoji_pictures(data: Path, split: str) -> ParquetConfig:
    """Return the emoji of a split, with their captions and attributes."""
    return ParquetConfig(
        path=data / "emoji" / "emoji-64.parquet",
        picture_column="webp64",
        caption_columns=("caption", "caption_short"),
        attributes={
            "name": "name",
            "phrase": "phrase",
            "style": "style_phrase",
            "visual": "visual",
            "kind": "group",
            "subkind": "subgroup",
            "tone": "tone_name",
        },
        filters={"split": (split,)},
        # The skin tones of one thing in one style count together as one picture.
        balance=("style", "base_hexcode"),
    )


def tokenizer_pictures(data: Path) -> tuple[WeightedSource, ...]:
    """Return the emoji of the train split and some photographs: 85 and 15 of 100 pictures."""
    return (
        WeightedSource(source=emoji_pictures(data, "train"), weight=0.85),
        *(
            WeightedSource(source=photo_pictures(data, name), weight=0.15 / len(PHOTOS))
            for name in PHOTOS
        ),
    )


def photo_pictures(data: Path, name: str) -> ParquetConfig:
    """Return the photographs of one of the packs `PHOTOS`, with their labels."""
    return ParquetConfig(
        path=data / "photos" / f"photos-{name}.parquet",
        picture_column="webp",
        caption_columns=("caption",),
        attributes={"name": "label", "kind": "coarse_label"},
        constants={"style": "photo"},
        filters={"split": ("train",)},
    )


def story_texts(data: Path) -> TextConfig:
    """Return chapters and rhymes of the train split, without the marks of their pictures."""
    return TextConfig(
        path=data / "stories" / "stories.parquet",
        filters={"split": ("train",)},
        remove=r"<\|image:[^|]*\|>",
    )
