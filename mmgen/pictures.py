"""Pictures in and out: files and bytes to RGB, arrays for the tokenizers, files with metadata.

Every picture of a user comes through `open_picture`, which checks before it decodes, so that a
broken, hostile or unusual file becomes one clear `PictureError` or a plain RGB picture.
"""

from __future__ import annotations

import io
import json
import os
import struct
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from PIL import ExifTags, Image, ImageDraw, ImageFont, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngImageFile, PngInfo

from mmgen.errors import OutputError, PictureError, SettingsError
from mmgen.visual_tokenizer import Picture, Resize

__all__ = [
    "MAX_PIXELS",
    "PictureFormat",
    "PictureSource",
    "atomic_file",
    "encode_picture",
    "half_blocks",
    "open_picture",
    "png_bytes",
    "read_metadata",
    "save_png",
    "sheet",
    "to_array",
    "to_picture",
]

PictureSource: TypeAlias = Path | bytes | Image.Image
"""Where a picture may come from."""

PictureFormat: TypeAlias = Literal["png", "webp", "jpeg"]
"""Formats that pictures are written in; WebP without loss unless a quality is given."""

MAX_PIXELS = 64_000_000
"""Largest picture that is decoded, in pixels; a small file can claim to be far larger."""

_FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "TIFF", "PPM", "ICO", "AVIF")
_WHITE = (255, 255, 255)
_USER_COMMENT_ASCII = b"ASCII\0\0\0"
_MAX_JPEG_EXIF = 65_533
# What Pillow's decoders raise on damaged data besides OSError.
_DECODE_ERRORS = (
    OSError, SyntaxError, ValueError, EOFError, IndexError, OverflowError, struct.error
)  # fmt: skip


def open_picture(source: PictureSource, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Return a picture as RGB, upright, with transparency laid over white.

    The first frame of an animation is taken. Palettes, CMYK and 16 bits are converted.
    """
    if isinstance(source, Image.Image):
        _check_size(source, "the picture", max_pixels)
        return _to_rgb(source, "the picture")
    name = str(source) if isinstance(source, Path) else f"the picture ({len(source)} bytes)"
    data = _read(source) if isinstance(source, Path) else source
    if not data:
        raise PictureError(f"{name} is empty (0 bytes); give a picture file, such as a PNG or JPEG")
    with _pillow_errors(name), Image.open(io.BytesIO(data), formats=_known_formats()) as picture:
        _check_size(picture, name, max_pixels)
        picture.load()
        return _to_rgb(picture, name)


def to_array(picture: Image.Image, size: tuple[int, int], resize: Resize) -> Picture:
    """Return an RGB picture as floats in 0..1 at a size.

    Args:
        picture: an RGB picture, as `open_picture` gives it.
        size: height and width wanted, in pixels.
        resize: what happens to a picture of another size.
    """
    height, width = size
    if picture.size != (width, height):
        method = Image.Resampling.LANCZOS
        if resize == "crop":
            picture = ImageOps.fit(picture, (width, height), method)
        elif resize == "pad":
            picture = ImageOps.pad(picture, (width, height), method, color=_WHITE)
        else:
            picture = picture.resize((width, height), method)
    return np.asarray(picture.convert("RGB"), dtype=np.float32) / np.float32(255)


def to_picture(array: Picture) -> Image.Image:
    """Return an array `[height, width, 3]` of floats as a picture; values beyond 0..1 are cut."""
    return Image.fromarray((np.clip(array, 0, 1) * 255 + 0.5).astype(np.uint8))


def png_bytes(picture: Image.Image, metadata: Mapping[str, str] | None = None) -> bytes:
    """Return a PNG file with text metadata."""
    info = PngInfo()
    for key, value in (metadata or {}).items():
        info.add_itxt(key, value)
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", pnginfo=info)
    return buffer.getvalue()


def save_png(picture: Image.Image, path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write a PNG file with text metadata, whole or not at all."""
    with atomic_file(path) as partial:
        partial.write_bytes(encode_picture(picture, "png", metadata))


def encode_picture(
    picture: Image.Image,
    form: PictureFormat,
    metadata: Mapping[str, str] | None = None,
    *,
    quality: int | None = None,
) -> bytes:
    """Return a picture as the bytes of a file with text metadata.

    Args:
        quality: 1 to 100, for JPEG and WebP; without it, WebP loses nothing.
    """
    if quality is not None and (form == "png" or not 1 <= quality <= 100):
        raise SettingsError(f"quality is 1 to 100, for JPEG and WebP, got {quality} for {form}")
    buffer = io.BytesIO()
    if form == "png":
        info = PngInfo()
        for key, value in (metadata or {}).items():
            info.add_itxt(key, value)
        picture.save(buffer, format="PNG", pnginfo=info)
        return buffer.getvalue()
    exif = Image.Exif()
    if metadata:
        stated = _USER_COMMENT_ASCII + json.dumps(metadata).encode()
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = stated
        if form == "jpeg" and len(exif.tobytes()) > _MAX_JPEG_EXIF:
            raise OutputError(
                f"the picture's metadata takes {len(stated):,} bytes, and JPEG holds "
                f"{_MAX_JPEG_EXIF:,} at most; write PNG or WebP"
            )
    if form == "jpeg":
        picture.save(buffer, format="JPEG", exif=exif, quality=quality or 90)
    elif quality is None:
        picture.save(buffer, format="WEBP", exif=exif, lossless=True)
    else:
        picture.save(buffer, format="WEBP", exif=exif, quality=quality)
    return buffer.getvalue()


def read_metadata(source: Path | bytes) -> dict[str, str]:
    """Return the text metadata of a picture that `encode_picture` made; others may have none."""
    name = str(source) if isinstance(source, Path) else f"the picture ({len(source)} bytes)"
    data = _read(source) if isinstance(source, Path) else source
    with _pillow_errors(name), Image.open(io.BytesIO(data)) as picture:
        if isinstance(picture, PngImageFile):
            return dict(picture.text)
        comment = picture.getexif().get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment)
    if not isinstance(comment, bytes) or not comment.startswith(_USER_COMMENT_ASCII):
        return {}
    try:
        found = json.loads(comment.removeprefix(_USER_COMMENT_ASCII))
    except ValueError:
        return {}
    return {str(key): str(value) for key, value in dict(found).items()} if found else {}


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path` that takes its place when the block succeeds."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}; check the folder, its permissions "
            "and the free space"
        ) from error
    finally:
        with suppress(NotADirectoryError):
            partial.unlink(missing_ok=True)


def half_blocks(picture: Image.Image, columns: int) -> str:
    """Return a picture as lines of coloured half blocks for a terminal with 24-bit colours."""
    rows = max(1, round(picture.height * columns / picture.width / 2))
    small = picture.convert("RGB").resize((columns, 2 * rows), Image.Resampling.BOX)
    pixels = np.asarray(small)
    lines = []
    for upper, lower in zip(pixels[::2].tolist(), pixels[1::2].tolist(), strict=True):
        cells = (
            f"\x1b[38;2;{a};{b};{c}m\x1b[48;2;{d};{e};{f}m▀"
            for (a, b, c), (d, e, f) in zip(upper, lower, strict=True)
        )
        lines.append("".join(cells) + "\x1b[0m")
    return "\n".join(lines)


def sheet(pictures: Sequence[Image.Image], labels: Sequence[str], columns: int) -> Image.Image:
    """Return pictures in a grid, each over its caption; equally many labels as pictures."""
    assert pictures and len(pictures) == len(labels), "a sheet needs one label per picture"
    gap, text_height, min_width = 8, 16, 96
    font = ImageFont.load_default(11)
    width = max(min_width, *(picture.width for picture in pictures))
    height = max(picture.height for picture in pictures)
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    cell = (width + gap, height + text_height + gap)
    result = Image.new("RGB", (columns * cell[0] + gap, rows * cell[1] + gap), _WHITE)
    draw = ImageDraw.Draw(result)
    for index, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        row, column = divmod(index, columns)
        left, top = column * cell[0] + gap, row * cell[1] + gap
        result.paste(picture, (left + (width - picture.width) // 2, top))
        while label and draw.textlength(label, font=font) > width:
            label = label.removesuffix("…")[:-1] + "…" if len(label) > 1 else ""
        draw.text((left, top + height + 1), label, fill=(60, 60, 60), font=font)
    return result


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise PictureError(f"there is no file {path}; check the path") from None
    except OSError as error:
        raise PictureError(f"cannot read {path}: {error.strerror}") from error


def _known_formats() -> list[str]:
    Image.init()
    return [name for name in _FORMATS if name in Image.OPEN]


@contextmanager
def _pillow_errors(name: str) -> Iterator[None]:
    with warnings.catch_warnings():
        # Pillow warns of strange metadata, which does not matter here, and of huge pictures.
        warnings.simplefilter("ignore")
        try:
            yield
        except UnidentifiedImageError:
            raise PictureError(
                f"{name} is not a picture that can be read; give a PNG, JPEG, WebP, GIF, BMP, "
                "TIFF, PPM, ICO or AVIF"
            ) from None
        except Image.DecompressionBombError as error:
            raise PictureError(f"{name} is too large to decode: {error}") from error
        except _DECODE_ERRORS as error:
            raise PictureError(f"{name} is damaged or cut short: {error}") from error


def _check_size(picture: Image.Image, name: str, max_pixels: int) -> None:
    width, height = picture.size
    if width < 1 or height < 1:
        raise PictureError(f"{name} is {width}x{height} pixels, so there is nothing to see")
    if width * height > max_pixels:
        raise PictureError(
            f"{name} is {width}x{height}, {width * height:,} pixels; at most {max_pixels:,} are "
            "decoded, so make it smaller first"
        )


def _to_rgb(picture: Image.Image, name: str) -> Image.Image:
    if picture.mode == "F":
        raise PictureError(f"{name} has floating-point pixels; save it with 8 or 16 bits")
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I"):
        levels = np.asarray(picture).astype(np.int64)
        picture = Image.fromarray((np.clip(levels, 0, 65535) // 257).astype(np.uint8))
    if picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        ground = Image.new("RGBA", picture.size, (*_WHITE, 255))
        picture = Image.alpha_composite(ground, picture)
    return picture.convert("RGB")
