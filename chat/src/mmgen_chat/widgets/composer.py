"""Where the user types: several lines, a history, and a list of ways to complete a word."""

from __future__ import annotations

from textual import events
from textual.binding import Binding
from textual.message import Message
from textual.widgets import TextArea

__all__ = ["Composer"]


class Composer(TextArea):
    """The prompt. Enter sends; shift+enter, alt+enter or ctrl+j starts a new line."""

    DEFAULT_CSS = """
    Composer { height: auto; min-height: 1; max-height: 6; border: none; padding: 0;
               background: $surface; }
    Composer:focus { border: none; }
    """

    BINDINGS = [
        Binding("enter", "send", "Send", priority=True, show=False),
        Binding("shift+enter,alt+enter,ctrl+j", "newline", "New line", show=False, priority=True),
    ]

    class Sent(Message):
        """A text shall be sent."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    class Hunted(Message):
        """A key was pressed that belongs to the list of completions while it is open."""

        def __init__(self, key: str) -> None:
            super().__init__()
            self.key = key

    class Pasted(Message):
        """Text was pasted; it may be the path of a file that was dropped."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    def __init__(self) -> None:
        super().__init__(
            compact=True,
            highlight_cursor_line=False,
            show_line_numbers=False,
            tab_behavior="focus",
            placeholder="Say something, or /  for commands, @ for files, ? for keys",
        )
        self.is_completing = False
        self._history: list[str] = []
        self._place = 0
        self._draft = ""

    def remember(self, text: str) -> None:
        """Add a text to what arrow up brings back."""
        if text and (not self._history or self._history[-1] != text):
            self._history.append(text)
        self._place = len(self._history)

    def put(self, text: str) -> None:
        """Replace the whole text and go to its end."""
        self.load_text(text)
        self.move_cursor(self.document.end)

    @property
    def before_cursor(self) -> str:
        """The text up to the cursor."""
        row, column = self.cursor_location
        lines = self.text.split("\n")
        return "\n".join([*lines[:row], lines[row][:column]])

    def replace_before_cursor(self, count: int, text: str) -> None:
        """Put text in the place of the last characters before the cursor."""
        row, column = self.cursor_location
        self.replace(text, (row, column - count), (row, column), maintain_selection_offset=False)
        self.move_cursor((row, column - count + len(text)))

    def action_send(self) -> None:
        if self.is_completing:
            self.post_message(self.Hunted("enter"))
        else:
            self.post_message(self.Sent(self.text))

    def action_newline(self) -> None:
        self.insert("\n")

    async def _on_key(self, event: events.Key) -> None:
        if self.is_completing and event.key in ("up", "down", "tab", "escape"):
            event.stop()
            event.prevent_default()
            self.post_message(self.Hunted(event.key))
            return
        row, _ = self.cursor_location
        if event.key == "up" and row == 0 and self._history:
            event.prevent_default()
            self._recall(-1)
            return
        if event.key == "down" and row == self.document.line_count - 1 and self._history:
            event.prevent_default()
            self._recall(1)

    async def _on_paste(self, event: events.Paste) -> None:
        event.prevent_default()
        event.stop()
        self.post_message(self.Pasted(event.text))

    def _recall(self, step: int) -> None:
        if self._place == len(self._history):
            self._draft = self.text
        self._place = min(max(self._place + step, 0), len(self._history))
        is_draft = self._place == len(self._history)
        self.put(self._draft if is_draft else self._history[self._place])
