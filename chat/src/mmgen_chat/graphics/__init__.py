"""Pictures on a terminal: what it can show, and the bytes that make it show them.

Five ways, from pixels to letters. A library was weighed and not taken: the one that fits Textual
is under the LGPL, knows no iTerm2, and cannot replace a picture in place. Nothing here knows of
widgets.
"""

from __future__ import annotations

from mmgen_chat.graphics.painting import AbstractPainting, fitted, paint
from mmgen_chat.graphics.terminal import GRAPHICS, Graphics, Terminal, plain_terminal

__all__ = [
    "GRAPHICS",
    "AbstractPainting",
    "Graphics",
    "Terminal",
    "fitted",
    "paint",
    "plain_terminal",
]
