"""All keys and commands on one page."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Static

from mmgen_chat.slash_commands import COMMANDS

__all__ = ["KEYS", "HelpScreen"]

KEYS = (
    ("Enter", "send; Shift+Enter, Alt+Enter or Ctrl+J begins a new line"),
    ("Esc", "stop the answer at once, or go back to the prompt"),
    ("↑ ↓", "in the prompt: what was said before"),
    ("Tab", "complete a word, else go to the next turn or picture"),
    ("@", "find a picture file by some of its letters"),
    ("Alt+← Alt+→", "other versions of the turn with the focus"),
    ("PgUp PgDn", "scroll the conversation"),
    ("on a picture", "Enter look closer · s save · c copy · o open"),
    ("", "d describe · r refine"),
    ("on a turn", "e edit · a again"),
    ("on an attachment", "Del or x takes it away"),
    ("F1 or ?", "this page (? while the prompt is empty)"),
    ("F2", "settings"),
    ("F3", "conversations"),
    ("F4", "gallery"),
    ("Ctrl+N", "new conversation"),
    ("Ctrl+P", "palette of commands"),
    ("Ctrl+Q", "leave"),
)


class HelpScreen(Screen[None]):
    """Keys and commands; any of the keys named at its end leaves it."""

    DEFAULT_CSS = """
    HelpScreen VerticalScroll { padding: 0 2; scrollbar-size-vertical: 1; }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,question_mark,f1,enter", "leave", "Back")
    ]

    def compose(self) -> ComposeResult:
        with VerticalScroll():
            yield Static(_page())

    def on_mount(self) -> None:
        self.query_one(VerticalScroll).focus()

    def action_leave(self) -> None:
        self.dismiss()


def _page() -> Content:
    parts: list[tuple[str, str] | str] = [("Keys", "bold"), "   (Esc goes back)\n"]
    for key, meaning in KEYS:
        parts += [(f"  {key:<17}", "$accent"), f"{meaning}\n"]
    group = ""
    for name, command in COMMANDS.items():
        if command.group != group:
            group = command.group
            parts += ["\n", (f"Commands for {group}", "bold"), "\n"]
        form = f"/{name} {command.form}".rstrip()
        gap = "\n" + " " * 19 if len(form) > 16 else ""
        parts += [(f"  {form:<17}", "$accent"), f"{gap}{command.summary}\n"]
    return Content.assemble(*parts)
