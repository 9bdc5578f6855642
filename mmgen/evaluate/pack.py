"""Pictures with what is known of them, read from a Parquet pack for evaluation.

Evaluation looks at whole splits at once and in a fixed order, so a pack is read into memory and
its pictures stay compressed until they are needed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from mmgen.data.sources import ParquetSource
from mmgen.errors import DataError, SettingsError
from mmgen.evaluate.progress import Progress, unwatched
from mmgen.pictures import open_picture

__all__ = [
    "EmojiRow",
    "fingerprint",
    "parse_filters",
    "read_captions",
    "read_emoji_pack",
    "read_other_pictures",
    "read_pictures",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class EmojiRow:
    """One picture of a pack that names concepts and styles."""

    id: str
    """Unique name of the row."""
    split: str
    """`train`, `val` (concepts never trained on) or `val_style` (pairs never trained on)."""
    style: str
    """Key of the drawing style."""
    style_phrase: str
    """The style in words."""
    concept: str
    """What is shown, without gender and skin tone."""
    name: str
    """What is shown, exactly."""
    phrase: str
    """The name as it stands in a sentence."""
    group: str
    """Key of the group of concepts."""
    caption_short: str
    """What is shown and in which style: the prompt."""
    base_hexcode: str
    """Key of the thing shown, whatever its skin tone."""
    tone: int
    """Skin tone, 0 for none."""
    webp64: bytes
    """The picture, compressed without loss."""

    def open(self) -> Image.Image:
        """Return the picture."""
        return open_picture(self.webp64)


def read_emoji_pack(path: Path) -> list[EmojiRow]:
    """Return the rows of an emoji pack in their own order."""
    columns = [name for name in EmojiRow.__slots__ if name not in ("id", "tone", "webp64")]
    source = ParquetSource(
        path,
        picture_column="webp64",
        attributes={name: name for name in (*columns, "tone")},
        id_column="id",
    )
    rows = []
    for index in range(source.num_rows):
        row = source.row(index)
        assert isinstance(row.picture, bytes), "a Parquet source gives encoded pictures"
        texts = {name: row.attributes.get(name, "") for name in columns}
        tone = int(row.attributes.get("tone", "0"))
        rows.append(EmojiRow(id=row.id, tone=tone, webp64=row.picture, **texts))
    return rows


def read_pictures(
    path: Path, *, column: str, filters: Mapping[str, str], limit: int | None
) -> list[Image.Image]:
    """Return the pictures of the first rows that pass all filters."""
    source = ParquetSource(
        path, picture_column=column, filters={key: [value] for key, value in filters.items()}
    )
    num = source.num_rows if limit is None else min(limit, source.num_rows)
    if num == 0:
        wanted = ", ".join(f"{key}={value}" for key, value in filters.items())
        raise DataError(f"{path} has no row with {wanted or 'a picture'}; check --filter")
    pictures = (source.row(index).picture for index in range(num))
    return [open_picture(picture) for picture in pictures if picture is not None]


def read_captions(
    path: Path, *, column: str, caption_column: str, filters: Mapping[str, str], limit: int | None
) -> list[str]:
    """Return the caption of each picture that `read_pictures` gives; empty where there is none."""
    source = ParquetSource(
        path,
        picture_column=column,
        caption_columns=[caption_column],
        filters={key: [value] for key, value in filters.items()},
    )
    num = source.num_rows if limit is None else min(limit, source.num_rows)
    rows = (source.row(index) for index in range(num))
    return [next(iter(row.captions), "") for row in rows if row.picture is not None]


def read_other_pictures(
    path: Path,
    *,
    column: str,
    filters: Mapping[str, str],
    caption_column: str | None,
    num_pictures: int,
    progress: Progress = unwatched,
) -> tuple[list[Image.Image], list[str]]:
    """Return pictures of the rows that some filter leaves out, with their captions.

    As many as asked for, or all if there are fewer, evenly spread over the pack. Captions are empty
    without a column of them. Nothing if there are no filters, which leave nothing out.
    """
    source = ParquetSource(
        path,
        picture_column=column,
        caption_columns=[] if caption_column is None else [caption_column],
        attributes={name: name for name in filters},
    )
    rest = [
        index
        for index in range(source.num_rows)
        if any(source.attributes(index).get(name) != value for name, value in filters.items())
    ]
    places = np.linspace(0, len(rest) - 1, min(num_pictures, len(rest)))
    pictures, captions = [], []
    chosen = np.unique(places.round().astype(int)).tolist()
    for place in progress(chosen, "reading the other rows"):
        row = source.row(rest[place])
        if row.picture is not None:
            pictures.append(open_picture(row.picture))
            captions.append(next(iter(row.captions), ""))
    return pictures, captions


def parse_filters(texts: Iterable[str]) -> dict[str, str]:
    """Return `column=value` texts as a mapping."""
    filters = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not (key and equals):
            raise SettingsError(f"--filter takes column=value, got {text!r}")
        filters[key] = value
    return filters


def fingerprint(rows: Iterable[EmojiRow]) -> str:
    """Return the SHA-256 of what rows show and are called, in hex."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(f"{row.id}\0{row.split}\0{row.concept}\0{len(row.webp64)}\0".encode())
        digest.update(row.webp64)
    return digest.hexdigest()
