"""Text from models, files and servers, made harmless before a terminal or Textual sees it.

Control characters could move the cursor, change the title or the clipboard, or answer the terminal
in the user's name; square brackets could be Textual's markup; directional characters could make a
line read as something else. Characters are made visible, never silently dropped, so that nobody is
fooled by what is missing either.
"""

from __future__ import annotations

import re
import unicodedata

__all__ = ["escape_markup", "one_line", "printable"]

# C0 without tab and newline, DEL, C1; then marks that turn the direction of writing.
_HARMFUL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
_LINE_ENDS = re.compile("\r\n|\r(?!\n)")
_BLANKS = re.compile(r"[\t\n ]+")


def printable(text: str) -> str:
    """Return text of any number of lines without anything that could command a terminal."""
    return _HARMFUL.sub(lambda match: _visible(match[0]), _LINE_ENDS.sub("\n", text))


def one_line(text: str, *, max_length: int | None = None) -> str:
    """Return text as one line without anything that could command a terminal.

    Args:
        max_length: longer text is cut, with an ellipsis at the end.
    """
    line = _BLANKS.sub(" ", printable(text)).strip()
    if max_length is not None and len(line) > max_length:
        line = f"{line[: max_length - 1].rstrip()}…"
    return line


def escape_markup(text: str) -> str:
    """Return text that Textual shows as it stands, for places where markup cannot be turned off."""
    escaped = text.replace("[", "\\[")
    # A backslash at the end would escape what the caller puts behind it; a character without width
    # stands between.
    return f"{escaped}\u200b" if escaped.endswith("\\") else escaped


def _visible(character: str) -> str:
    """Return a sign for a control character: its picture, or its code in brackets."""
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "\u2421"
    if unicodedata.category(character) == "Cs":
        return "\ufffd"
    return f"<U+{code:04X}>"
