"""What an empty conversation shows: what this is, and three things to try."""

from __future__ import annotations

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

__all__ = ["SUGGESTIONS", "Greeting"]

SUGGESTIONS = (
    ("draw a smiling face", "watch it being drawn"),
    ("/best 4 a red heart", "the best of four, by its own eyes"),
    ("/compare 1 2 a cat, pixel art style", "two seeds side by side"),
)


class Greeting(Vertical):
    """Shown until something is said."""

    DEFAULT_CSS = """
    Greeting { height: auto; padding: 1 2; }
    Greeting Static { height: auto; margin: 0 0 1 0; }
    Greeting OptionList { height: auto; border: none; padding: 0; background: transparent; }
    """

    class Chosen(Message):
        """Something shall be tried."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    def compose(self) -> ComposeResult:
        yield Static(
            Content.assemble(
                ("This model writes and draws. ", "bold"),
                "Pictures appear as they are drawn.\n"
                "Three things to try: press ↑ and Enter, or click.",
            )
        )
        options = OptionList(compact=True, markup=False)
        for text, detail in SUGGESTIONS:
            options.add_option(Option(Content.assemble(f"{text:<42}", (detail, "$text-muted"))))
        yield options

    def on_mount(self) -> None:
        self.query_one(OptionList).highlighted = 0

    def focus_list(self) -> None:
        """Let arrows and Enter choose."""
        self.query_one(OptionList).focus()

    @on(OptionList.OptionSelected)
    def _selected(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        self.post_message(self.Chosen(SUGGESTIONS[event.option_index][0]))
