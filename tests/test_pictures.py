"""Pictures of every common kind become RGB; broken ones become one clear error."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmgen.errors import OutputError, PictureError
from mmgen.pictures import (
    half_blocks,
    open_picture,
    read_metadata,
    save_png,
    sheet,
    to_array,
    to_picture,
)


def encoded(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format=kind, **options)
    return buffer.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims to be huge."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0"))


def test_reads_path_bytes_and_picture_alike(tmp_path: Path) -> None:
    red = Image.new("RGB", (5, 3), (200, 10, 20))
    path = tmp_path / "red.png"
    path.write_bytes(encoded(red))
    for source in (path, path.read_bytes(), red):
        picture = open_picture(source)
        assert picture.mode == "RGB"
        assert picture.size == (5, 3)
        assert picture.getpixel((4, 2)) == (200, 10, 20)


def test_transparency_lies_over_white() -> None:
    clear = Image.new("RGBA", (2, 2), (255, 0, 0, 0))
    assert open_picture(encoded(clear)).getpixel((0, 0)) == (255, 255, 255)
    half = Image.new("RGBA", (2, 2), (0, 0, 0, 128))
    assert open_picture(half).getpixel((1, 1)) == (127, 127, 127)
    palette = Image.new("P", (2, 2), 0)
    palette.putpalette([9, 9, 9])
    assert open_picture(encoded(palette, transparency=0)).getpixel((0, 0)) == (255, 255, 255)


def test_converts_cmyk_sixteen_bits_and_grey() -> None:
    cmyk = Image.new("CMYK", (4, 4), (0, 0, 0, 0))
    assert open_picture(encoded(cmyk, "JPEG")).getpixel((0, 0)) == (255, 255, 255)
    deep = Image.fromarray(np.full((2, 2), 32896, dtype=np.uint16))
    assert open_picture(encoded(deep)).getpixel((0, 0)) == (128, 128, 128)
    assert open_picture(encoded(Image.new("1", (2, 2), 1))).getpixel((0, 0)) == (255, 255, 255)


def test_refuses_floating_point_pixels() -> None:
    with pytest.raises(PictureError, match="floating-point"):
        open_picture(encoded(Image.new("F", (2, 2), 0.5), "TIFF"))


def test_turns_a_photo_upright() -> None:
    picture = Image.new("RGB", (6, 2))
    exif = Image.Exif()
    exif[0x0112] = 6
    assert open_picture(encoded(picture, "JPEG", exif=exif)).size == (2, 6)


def test_takes_the_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ((255, 0, 0), (0, 0, 255))]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert open_picture(data).getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"hello, I am no picture", "not a picture"),
        (encoded(Image.effect_noise((64, 64), 90))[:900], "damaged or cut short"),
        (encoded(Image.effect_noise((64, 64), 90), "JPEG")[:900], "damaged or cut short"),
        (bomb(9_000, 9_000), "9000x9000"),
        (bomb(60_000, 60_000), "too large"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture"),
    ],
)  # fmt: skip
def test_refuses_what_is_no_picture(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "given.bin"
    path.write_bytes(data)
    with pytest.raises(PictureError, match=message):
        open_picture(data)
    with pytest.raises(PictureError, match=r"given\.bin.*" + message):
        open_picture(path)


def test_refuses_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(PictureError, match=r"no file .*cat\.png"):
        open_picture(tmp_path / "cat.png")
    with pytest.raises(PictureError, match="cannot read"):
        open_picture(tmp_path)


def test_refuses_more_pixels_than_asked() -> None:
    with pytest.raises(PictureError, match="at most 99"):
        open_picture(Image.new("RGB", (10, 10)), max_pixels=99)


def test_resize_rules() -> None:
    wide = Image.new("RGB", (40, 20), (255, 0, 0))
    wide.paste((0, 0, 255), (0, 0, 10, 20))
    crop = to_array(wide, (8, 8), "crop")
    pad = to_array(wide, (8, 8), "pad")
    stretch = to_array(wide, (8, 8), "stretch")
    assert crop.shape == pad.shape == stretch.shape == (8, 8, 3)
    assert crop.dtype == np.float32
    assert crop[4, 0].tolist() == pytest.approx([1, 0, 0], abs=0.1)
    assert pad[0, 0].tolist() == [1, 1, 1]
    assert stretch[4, 0].tolist() == pytest.approx([0, 0, 1], abs=0.1)


def test_arrays_round_trip() -> None:
    levels = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    picture = Image.fromarray(levels)
    array = to_array(picture, (16, 16), "crop")
    assert np.array_equal(np.asarray(to_picture(array)), levels)
    beyond = np.array([[[-1.0, 0.5, 2.0]]], dtype=np.float32)
    assert to_picture(beyond).getpixel((0, 0)) == (0, 128, 255)


def test_png_keeps_metadata(tmp_path: Path) -> None:
    path = tmp_path / "out.png"
    metadata = {"prompt": "ein roter Apfel 🍎\n", "seed": "7"}
    save_png(Image.new("RGB", (3, 3), (1, 2, 3)), path, metadata)
    assert read_metadata(path) == metadata
    assert open_picture(path).getpixel((0, 0)) == (1, 2, 3)
    assert [file.name for file in tmp_path.iterdir()] == ["out.png"]


def test_other_formats_have_no_metadata(tmp_path: Path) -> None:
    path = tmp_path / "out.jpg"
    path.write_bytes(encoded(Image.new("RGB", (3, 3)), "JPEG"))
    assert read_metadata(path) == {}


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot write"):
        save_png(Image.new("RGB", (3, 3)), tmp_path / "none" / "out.png")
    (tmp_path / "out.png").mkdir()
    with pytest.raises(OutputError, match="cannot write"):
        save_png(Image.new("RGB", (3, 3)), tmp_path / "out.png")
    assert [file.name for file in tmp_path.iterdir()] == ["out.png"]


def test_half_blocks_show_two_pixels_a_character() -> None:
    picture = Image.new("RGB", (4, 4), (255, 0, 0))
    lines = half_blocks(picture, 4).split("\n")
    assert len(lines) == 2
    assert lines[0].count("▀") == 4
    assert "38;2;255;0;0" in lines[0]
    assert lines[0].endswith("\x1b[0m")


def test_sheet_holds_every_picture() -> None:
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    pictures = [Image.new("RGB", (32, 32), colour) for colour in colours]
    result = sheet(pictures, ["red", "green", "a very long label that cannot fit in here"], 2)
    found = {colour for _, colour in result.getcolors(100_000) or []}
    assert set(colours) <= found
    assert result.height > 2 * 32


def test_a_file_in_place_of_the_folder_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OutputError, match="cannot write"):
        save_png(Image.new("RGB", (2, 2)), tmp_path / "file" / "out.png")
