"""Text from models, servers and files, made safe for a terminal.

What could command a terminal, or make text read otherwise than it is stored, is replaced by a
visible sign. Textual's markup needs no care here: nothing of this text is ever read as markup.
"""

from __future__ import annotations

import re
import unicodedata

__all__ = ["one_line", "printable"]

_KEPT = "\n\t"
_SIGN = "�"


def printable(text: str) -> str:
    """Return text without anything that could command a terminal; line ends and tabs stay."""
    return "".join(
        character if character in _KEPT or not _is_command(character) else _SIGN
        for character in text.replace("\r\n", "\n")
    )


def one_line(text: str) -> str:
    """Return text as one line without anything that could command a terminal."""
    return re.sub(r"\s+", " ", printable(text)).strip()


def _is_command(character: str) -> bool:
    # Controls, surrogates, and the marks that turn the direction of text around.
    category = unicodedata.category(character)
    return category in ("Cc", "Cs") or character in "\u2028\u2029" or _turns(character)


def _turns(character: str) -> bool:
    return "\u202a" <= character <= "\u202e" or "\u2066" <= character <= "\u2069"
