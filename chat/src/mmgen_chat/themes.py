"""The colours of the chat: a dark, a light and a high-contrast theme, besides Textual's own."""

from __future__ import annotations

from textual.theme import BUILTIN_THEMES, Theme

from mmgen.errors import SettingsError

__all__ = ["THEMES", "check_theme"]

THEMES = (
    Theme(
        name="mmgen-dark",
        primary="#5c9ded",
        secondary="#8fb4e3",
        accent="#f2a65a",
        warning="#e5c07b",
        error="#ef7b7b",
        success="#8fce9b",
        background="#15181d",
        surface="#1b1f26",
        panel="#262c36",
        foreground="#dfe3ea",
        dark=True,
    ),
    Theme(
        name="mmgen-light",
        primary="#1f5fb4",
        secondary="#3f6ea8",
        accent="#b35900",
        warning="#8a6100",
        error="#b3261e",
        success="#1e7a3c",
        background="#fbfaf7",
        surface="#f2f0ea",
        panel="#e4e1d8",
        foreground="#1f2328",
        dark=False,
    ),
    Theme(
        name="mmgen-contrast",
        primary="#ffffff",
        secondary="#ffffff",
        accent="#ffff00",
        warning="#ffff00",
        error="#ff8080",
        success="#80ff80",
        background="#000000",
        surface="#000000",
        panel="#000000",
        foreground="#ffffff",
        dark=True,
        text_alpha=1.0,
        variables={"text-muted": "#ffffff", "border": "#ffffff"},
    ),
)


def check_theme(name: str) -> None:
    """Refuse a theme that does not exist.

    Raises:
        SettingsError: there is none of that name.
    """
    known = [*(theme.name for theme in THEMES), *sorted(BUILTIN_THEMES)]
    if name not in known:
        raise SettingsError(f"no theme is called {name!r}; there are {', '.join(known)}")
