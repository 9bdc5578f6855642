"""Control sequences that carry pictures: kitty's protocol, iTerm2's, and tmux's wrapping of both.

Kitty's pictures are shown by placeholder characters: each names its picture by its colour and
its row and column by combining marks, so a picture scrolls, clips and disappears as text does.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator

from PIL import Image

__all__ = [
    "MAX_CELLS",
    "PLACEHOLDER",
    "at",
    "iterm2_picture",
    "kitty_delete",
    "kitty_mark",
    "kitty_transmit",
    "synchronized",
    "through_tmux",
]

PLACEHOLDER = "\U0010eeee"
_CHUNK = 4096

# Combining marks of class 230 that no normalisation changes, in kitty's order: the mark of a
# row or column is the one at its index.
_MARK_RANGES = (
    (0x0305, 0x0305), (0x030D, 0x030E), (0x0310, 0x0310), (0x0312, 0x0312), (0x033D, 0x033F),
    (0x0346, 0x0346), (0x034A, 0x034C), (0x0350, 0x0352), (0x0357, 0x0357), (0x035B, 0x035B),
    (0x0363, 0x036F), (0x0483, 0x0487), (0x0592, 0x0595), (0x0597, 0x0599), (0x059C, 0x05A1),
    (0x05A8, 0x05A9), (0x05AB, 0x05AC), (0x05AF, 0x05AF), (0x05C4, 0x05C4), (0x0610, 0x0617),
    (0x0657, 0x065B), (0x065D, 0x065E), (0x06D6, 0x06DC), (0x06DF, 0x06E2), (0x06E4, 0x06E4),
    (0x06E7, 0x06E8), (0x06EB, 0x06EC), (0x0730, 0x0730), (0x0732, 0x0733), (0x0735, 0x0736),
    (0x073A, 0x073A), (0x073D, 0x073D), (0x073F, 0x0741), (0x0743, 0x0743), (0x0745, 0x0745),
    (0x0747, 0x0747), (0x0749, 0x074A), (0x07EB, 0x07F1), (0x07F3, 0x07F3),
)  # fmt: skip
_MARKS = tuple(chr(code) for first, last in _MARK_RANGES for code in range(first, last + 1))

MAX_CELLS = len(_MARKS)
"""Most rows or columns that a picture by placeholders can have."""


def kitty_mark(row: int, column: int) -> str:
    """Return the character that shows one cell of a picture."""
    return f"{PLACEHOLDER}{_MARKS[row]}{_MARKS[column]}"


def kitty_transmit(image: Image.Image, number: int, columns: int, rows: int) -> Iterator[str]:
    """Yield the sequences that hand a picture over, to be shown where placeholders name it."""
    data = base64.standard_b64encode(_png(image)).decode("ascii")
    chunks = [data[start : start + _CHUNK] for start in range(0, len(data), _CHUNK)]
    for index, chunk in enumerate(chunks):
        more = int(index + 1 < len(chunks))
        head = f"a=T,U=1,f=100,q=2,i={number},c={columns},r={rows},m={more}" if index == 0 else ""
        yield f"\x1b_G{head or f'q=2,m={more}'};{chunk}\x1b\\"


def kitty_delete(number: int) -> str:
    """Return the sequence that takes a picture out of the terminal's memory."""
    return f"\x1b_Ga=d,d=I,q=2,i={number}\x1b\\"


def iterm2_picture(image: Image.Image, columns: int, rows: int) -> str:
    """Return the sequence that shows a picture at the cursor, in a number of cells."""
    png = _png(image)
    data = base64.standard_b64encode(png).decode("ascii")
    head = f"inline=1;size={len(png)};width={columns};height={rows};preserveAspectRatio=0"
    return f"\x1b]1337;File={head};doNotMoveCursor=1:{data}\x07"


def at(x: int, y: int, data: str) -> str:
    """Return data to be written at a place of the screen, the cursor left where it was."""
    return f"\x1b7\x1b[{y + 1};{x + 1}H{data}\x1b8"


def synchronized(data: str) -> str:
    """Return data to be shown all at once by terminals that know how, and as it comes by others."""
    return f"\x1b[?2026h{data}\x1b[?2026l"


def through_tmux(sequence: str) -> str:
    """Return a sequence as tmux hands it to the terminal around it."""
    doubled = sequence.replace("\x1b", "\x1b\x1b")
    return f"\x1bPtmux;{doubled}\x1b\\"


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
