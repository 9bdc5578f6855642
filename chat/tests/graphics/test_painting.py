"""Pictures as terminals get them, read back by decoders that know nothing of the encoders."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from textual.geometry import Region

from mmgen_chat.graphics import Graphics, Terminal, fitted, paint
from mmgen_chat.graphics.escapes import MAX_CELLS, at, kitty_mark, synchronized, through_tmux
from mmgen_chat.graphics.sixel import sixel


def picture(width: int = 32, height: int = 32, colors: int = 7) -> Image.Image:
    generator = np.random.default_rng(0)
    table = generator.integers(0, 256, (colors, 3), dtype=np.uint8)
    return Image.fromarray(table[generator.integers(0, colors, (height, width))])


def terminal(graphics: Graphics, cell: tuple[int, int] = (8, 16)) -> Terminal:
    return Terminal(graphics=graphics, cell=cell)


def unsixel(data: str, size: tuple[int, int]) -> npt.NDArray[np.int64]:
    """Return the pixels of a sixel string of a size as 0..100 per channel; unset ones are -1."""
    match = re.fullmatch(r"\x1bP[0-9;]*q(.*)\x1b\\", data, re.DOTALL)
    assert match is not None
    width, height = size
    pixels = np.full((height + 6, width + 1, 3), -1)
    table: dict[int, tuple[int, ...]] = {}
    color = x = top = 0
    for token in re.findall(r"#\d+(?:;\d+)*|!\d+.|[$-]|[?-~]", match[1]):
        if token[0] == "#":
            color, *rest = map(int, token[1:].split(";"))
            if rest:
                assert rest[0] == 2
                table[color] = tuple(rest[1:])
        elif token == "$":
            x = 0
        elif token == "-":
            x, top = 0, top + 6
        else:
            count = int(token[1:-1]) if token[0] == "!" else 1
            bits = ord(token[-1]) - 63
            for row in range(6):
                if bits >> row & 1:
                    pixels[top + row, x : x + count] = table[color]
            x += count
    assert (pixels[height:] == -1).all() and (pixels[:, width:] == -1).all()
    return pixels[:height, :width]


@pytest.mark.parametrize("size", [(1, 1), (32, 32), (17, 13), (40, 6), (5, 7)])
def test_a_sixel_string_is_the_picture_pixel_for_pixel(size: tuple[int, int]) -> None:
    image = picture(*size)
    expected = (np.asarray(image).astype(int) * 100 + 127) // 255
    assert np.array_equal(unsixel(sixel(image), size), expected)


def test_a_photograph_in_sixels_is_near_the_picture() -> None:
    ramp = np.linspace(0, 255, 64 * 64).reshape(64, 64).astype(np.uint8)
    image = Image.fromarray(np.stack([ramp, ramp.T, 255 - ramp], axis=-1))
    error = np.abs(unsixel(sixel(image), (64, 64)) * 2.55 - np.asarray(image))
    assert error.mean() < 6


def test_part_of_a_picture_is_laid_over_where_only_part_is_seen() -> None:
    painting = paint(picture(), terminal("sixel"), 8, 4)
    whole = unsixel(painting.overlay(Region(0, 0, 8, 4)), (64, 64))
    part = unsixel(painting.overlay(Region(0, 1, 8, 2)), (64, 32))
    assert whole.min() >= 0 and part.min() >= 0
    assert np.abs(part - whole[16:48]).max() <= 2


def test_iterm2_gets_a_png_in_cells() -> None:
    data = paint(picture(), terminal("iterm2"), 8, 4).overlay(Region(0, 0, 8, 4))
    match = re.fullmatch(r"\x1b\]1337;File=([^:]*):([A-Za-z0-9+/=]*)\x07", data)
    assert match is not None
    settings = dict(item.split("=") for item in match[1].split(";"))
    assert (settings["width"], settings["height"], settings["inline"]) == ("8", "4", "1")
    png = base64.b64decode(match[2])
    assert int(settings["size"]) == len(png)
    assert Image.open(io.BytesIO(png)).size == (64, 64)


def test_kitty_gets_the_picture_in_chunks_and_names_it_in_each_cell() -> None:
    image = picture(64, 64, colors=200)
    painting = paint(image, terminal("kitty"), 32, 16)
    sequences = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", painting.opening)
    assert len(sequences) > 1 and all(len(data) <= 4096 for _, data in sequences)
    head = dict(item.split("=") for item in sequences[0][0].split(","))
    assert (head["U"], head["c"], head["r"], head["f"]) == ("1", "32", "16", "100")
    assert [re.search(r"m=(\d)", keys)[1] for keys, _ in sequences] == [  # type: ignore[index]
        *["1"] * (len(sequences) - 1),
        "0",
    ]
    png = base64.b64decode("".join(data for _, data in sequences))
    shown = Image.open(io.BytesIO(png)).resize((64, 64), Image.Resampling.NEAREST)
    assert np.array_equal(np.asarray(shown), np.asarray(image))
    strip = painting.strip(3)
    assert strip.cell_length == 32 and strip.text.startswith(kitty_mark(3, 0))
    style = next(iter(strip)).style
    assert style is not None and style.color is not None and style.color.triplet is not None
    red, green, blue = style.color.triplet
    assert red << 16 | green << 8 | blue == int(head["i"])
    assert f"i={head['i']}" in painting.closing and "d=I" in painting.closing


def test_two_states_of_a_picture_have_two_numbers() -> None:
    first = paint(picture(), terminal("kitty"), 4, 2)
    second = paint(picture(), terminal("kitty"), 4, 2)
    assert first.closing != second.closing


def test_tmux_hands_on_what_is_wrapped() -> None:
    wrapped = through_tmux("\x1b_Gx\x1b\\")
    assert wrapped == "\x1bPtmux;\x1b\x1b_Gx\x1b\x1b\\\x1b\\"
    inside = paint(picture(), Terminal(graphics="kitty", in_tmux=True), 4, 2)
    assert inside.opening.startswith("\x1bPtmux;\x1b\x1b_G")


def test_what_is_written_elsewhere_leaves_the_cursor_where_it_was() -> None:
    assert at(2, 5, "x") == "\x1b7\x1b[6;3Hx\x1b8"
    assert synchronized("x") == "\x1b[?2026hx\x1b[?2026l"


def test_half_blocks_show_two_pixels_in_a_cell() -> None:
    image = picture(6, 4)
    strips = [paint(image, terminal("half-block"), 6, 2).strip(row) for row in range(2)]
    pixels = np.asarray(image).tolist()
    for row, strip in enumerate(strips):
        cells = [
            (segment.style.color.triplet, segment.style.bgcolor.triplet)  # type: ignore[union-attr]
            for segment in strip
            for _ in segment.text
        ]
        assert [tuple(map(list, cell)) for cell in cells] == [  # type: ignore[arg-type]
            (upper, lower)
            for upper, lower in zip(pixels[2 * row], pixels[2 * row + 1], strict=True)
        ]


def test_letters_go_from_dark_to_bright() -> None:
    ramp = Image.fromarray(np.tile(np.linspace(0, 255, 40).astype(np.uint8), (8, 1)))
    text = paint(ramp, terminal("ascii"), 40, 2).strip(0).text
    assert text[0] == " " and text[-1] == "@" and len(text) == 40


@pytest.mark.parametrize("graphics", ["kitty", "iterm2", "sixel", "half-block", "ascii"])
@pytest.mark.parametrize("size", [(64, 64), (256, 128), (30, 200), (4000, 3)])
def test_a_picture_keeps_its_shape_and_fits(graphics: Graphics, size: tuple[int, int]) -> None:
    columns, rows = fitted(size, terminal(graphics), 70, 14)
    assert 1 <= columns <= 70 and 1 <= rows <= 14
    if min(columns, rows) > 3:
        assert columns * 8 / (rows * 16) == pytest.approx(size[0] / size[1], rel=0.15)


def test_a_large_screen_does_not_exceed_what_placeholders_can_name() -> None:
    columns, rows = fitted((100, 100), terminal("kitty"), 900, 900)
    assert max(columns, rows) <= MAX_CELLS
    kitty_mark(MAX_CELLS - 1, MAX_CELLS - 1)
