"""Pictures with what is known of them, read from a Parquet pack for evaluation.

Evaluation looks at whole splits at once and in a fixed order, so a pack is read into memory and
its pictures stay compressed until they are needed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from mmgen.errors import DataError, SettingsError
from mmgen.pictures import open_picture

__all__ = [
    "EmojiRow",
    "fingerprint",
    "parse_filters",
    "read_emoji_pack",
    "read_pictures",
    "read_rows",
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
    names = [field for field in EmojiRow.__slots__]
    return [EmojiRow(**{name: row[name] for name in names}) for row in read_rows(path, names)]


def read_pictures(
    path: Path, *, column: str, filters: Mapping[str, str], limit: int | None
) -> tuple[list[Image.Image], list[str]]:
    """Return the pictures of the rows that pass the filters, and a label for each."""
    rows = read_rows(path, [column, *filters], optional=["id"])
    rows = [row for row in rows if all(str(row[key]) == value for key, value in filters.items())]
    if not rows:
        wanted = ", ".join(f"{key}={value}" for key, value in filters.items())
        raise DataError(f"{path} has no row with {wanted or 'a picture'}; check --filter")
    chosen = rows[:limit]
    labels = [str(row.get("id", index)) for index, row in enumerate(chosen)]
    return [open_picture(_as_bytes(row[column], path, column)) for row in chosen], labels


def read_rows(
    path: Path, columns: Sequence[str], *, optional: Sequence[str] = ()
) -> list[dict[str, object]]:
    """Return the rows of a Parquet file with these columns, and with optional ones it has."""
    try:
        existing = pq.read_schema(path).names
        missing = [name for name in columns if name not in existing]
        if missing:
            raise DataError(
                f"{path} has no column {', '.join(missing)}; it has {', '.join(existing)}"
            )
        wanted = [*columns, *(name for name in optional if name in existing)]
        table = pq.read_table(path, columns=list(dict.fromkeys(wanted)))
    except FileNotFoundError:
        raise DataError(f"there is no file {path}; give a Parquet pack with --data") from None
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read as Parquet: {error}") from error
    rows: list[dict[str, object]] = table.to_pylist()
    return rows


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


def _as_bytes(value: object, path: Path, column: str) -> bytes:
    if isinstance(value, Mapping):
        value = value.get("bytes")
    if not isinstance(value, bytes):
        raise DataError(
            f"column {column} of {path} holds {type(value).__name__}, expected the bytes of a "
            "picture; choose another --picture-column"
        )
    return value
