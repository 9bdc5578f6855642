"""A small pack of drawn shapes with the columns of an emoji pack."""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageDraw

from mmgen.evaluate.pack import EmojiRow, read_emoji_pack

SHAPES = ("square", "circle", "triangle", "bar")
COLOURS = {"red": (220, 30, 30), "green": (20, 160, 60), "blue": (30, 60, 220)}
GROUPS = {"square": "flat", "bar": "flat", "circle": "round-things", "triangle": "flat"}


def draw_shape(shape: str, colour: tuple[int, int, int], shift: int = 0) -> Image.Image:
    """Draw one shape of one colour on white, 64 pixels a side."""
    image = Image.new("RGB", (64, 64), (255, 255, 255))
    draw = ImageDraw.Draw(image)
    low, high = 14 + shift, 50 + shift
    if shape == "square":
        draw.rectangle((low, low, high, high), fill=colour)
    elif shape == "circle":
        draw.ellipse((low, low, high, high), outline=colour, width=7)
    elif shape == "triangle":
        draw.polygon([(low, high), (high, high), ((low + high) // 2, low)], fill=colour)
    else:
        draw.rectangle((4, 28 + shift, 60, 34 + shift), fill=colour)
    return image


def shape_rows() -> list[dict[str, object]]:
    """Return 3 splits: shapes seen, shapes seen in another colour, and a shape never seen."""
    rows: list[dict[str, object]] = []
    for shape in SHAPES:
        for style, colour in COLOURS.items():
            split = "val" if shape == "bar" else "train"
            if (shape, style) == ("circle", "blue"):
                split = "val_style"
            for shift in (-2, 0, 2):
                buffer = io.BytesIO()
                draw_shape(shape, colour, shift).save(buffer, "WEBP", lossless=True)
                rows.append(
                    {
                        "id": f"{style}/{shape}{shift}",
                        "split": split,
                        "style": style,
                        "style_phrase": style,
                        "concept": shape,
                        "name": f"{shape} shape",
                        "phrase": f"a {shape}",
                        "group": GROUPS[shape],
                        "caption_short": f"a {shape}, {style} style",
                        "base_hexcode": shape,
                        "tone": abs(shift),
                        "webp64": buffer.getvalue(),
                    }
                )
    return rows


@pytest.fixture(scope="session")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pack as a Parquet file."""
    path = tmp_path_factory.mktemp("pack") / "shapes.parquet"
    pq.write_table(pa.Table.from_pylist(shape_rows()), path)
    return path


@pytest.fixture(scope="session")
def rows(pack: Path) -> list[EmojiRow]:
    """The pack's rows as evaluation reads them."""
    return read_emoji_pack(pack)
