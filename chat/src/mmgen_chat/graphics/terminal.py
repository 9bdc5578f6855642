"""What a terminal can show, worked out from its environment and from its answers to questions.

Asking is the business of `probe`; deciding is done here, on plain values.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

__all__ = ["GRAPHICS", "Answers", "Colors", "Graphics", "Terminal", "decide", "plain_terminal"]

Graphics: TypeAlias = Literal["kitty", "iterm2", "sixel", "half-block", "ascii"]
"""How pictures are shown."""

GRAPHICS: tuple[Graphics, ...] = get_args(Graphics)
"""All of them, the best first."""

Colors: TypeAlias = Literal["truecolor", "256", "16", "none"]
"""How many colours a terminal shows."""

DEFAULT_CELL = (10, 20)

# Terminals that place kitty's pictures by placeholder characters, which scroll and clip as text
# does. Others speak the protocol without them.
_WITH_PLACEHOLDERS = re.compile(r"^(kitty|ghostty)\b\D*([0-9]+)?\.?([0-9]+)?", re.IGNORECASE)
_FIRST_KITTY = (0, 28)
_WITH_ITERM2 = re.compile(r"^(iterm2|wezterm|mintty)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What a terminal said of itself; None and nothing where it kept silent."""

    name: str = ""
    """Its name and version."""
    attributes: frozenset[int] = frozenset()
    """Of its primary device attributes; 4 is sixel."""
    has_kitty: bool = False
    """Whether it took a picture in kitty's protocol."""
    cell: tuple[int, int] | None = None
    """Width and height of a character cell in pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terminal:
    """How pictures shall be shown."""

    graphics: Graphics
    cell: tuple[int, int] = DEFAULT_CELL
    """Width and height of a character cell in pixels."""
    colors: Colors = "truecolor"
    in_tmux: bool = False
    """Whether what is meant for the outer terminal has to be wrapped for tmux."""

    @property
    def cell_ratio(self) -> float:
        """Height of a cell over its width."""
        return self.cell[1] / self.cell[0]


def plain_terminal() -> Terminal:
    """Return the terminal that works everywhere: half blocks, nothing asked."""
    return Terminal(graphics="half-block")


def decide(
    answers: Answers,
    environment: Mapping[str, str],
    *,
    wanted: Graphics | None = None,
    passes_through: bool = False,
) -> Terminal:
    """Return how to show pictures.

    Args:
        wanted: what the user asked for, which is not questioned.
        passes_through: whether tmux hands on what is meant for the terminal around it.
    """
    colors = _colors(environment)
    in_tmux = bool(environment.get("TMUX"))
    if wanted is not None:
        graphics = wanted
    elif colors == "none" or not _is_unicode(environment):
        graphics = "ascii"
    elif answers.has_kitty and _has_placeholders(answers.name) and colors == "truecolor":
        graphics = "kitty"
    elif _WITH_ITERM2.match(answers.name) and not in_tmux:
        graphics = "iterm2"
    else:
        graphics = _without_protocol(answers)
    if wanted is None and in_tmux and graphics == "kitty" and not passes_through:
        graphics = _without_protocol(answers)
    return Terminal(
        graphics=graphics, cell=answers.cell or DEFAULT_CELL, colors=colors, in_tmux=in_tmux
    )


def _without_protocol(answers: Answers) -> Graphics:
    # Sixels are pixels: without the size of a cell they would cover what is beside them.
    return "sixel" if 4 in answers.attributes and answers.cell is not None else "half-block"


def _has_placeholders(name: str) -> bool:
    match = _WITH_PLACEHOLDERS.match(name)
    if match is None or match[1].lower() != "kitty":
        return match is not None
    return (int(match[2] or 0), int(match[3] or 0)) >= _FIRST_KITTY


def _colors(environment: Mapping[str, str]) -> Colors:
    if environment.get("NO_COLOR") or environment.get("TERM") == "dumb":
        return "none"
    if environment.get("COLORTERM", "").lower() in ("truecolor", "24bit"):
        return "truecolor"
    term = environment.get("TERM", "")
    if term.endswith("-direct"):
        return "truecolor"
    return "256" if "256color" in term or "kitty" in term else "16"


def _is_unicode(environment: Mapping[str, str]) -> bool:
    for name in ("LC_ALL", "LC_CTYPE", "LANG"):
        if environment.get(name):
            return bool(re.search(r"utf-?8", environment[name], re.IGNORECASE))
    return True
