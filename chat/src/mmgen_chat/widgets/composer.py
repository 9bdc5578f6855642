"""Where the user types: several lines, a history, and a list of ways to complete a word."""

from __future__ import annotations

from textual import events
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

    class HelpWanted(Message):
        """A question mark was typed where nothing else stands."""

    class Paged(Message):
        """The conversation shall be scrolled by a page; the prompt itself is always short."""

        def __init__(self, step: int) -> None:
            super().__init__()
            self.step = step

    class Left(Message):
        """Arrow up was pressed where there is no history."""

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

    def send(self) -> None:
        """Hand the text over and start afresh."""
        self.post_message(self.Sent(self.take()))

    def take(self) -> str:
        """Return the text and start afresh."""
        text = self.text
        self.put("")
        return text

    def give_back(self, text: str) -> None:
        """Return a text that could not be sent, before whatever was typed since."""
        self.put(text + self.text)

    async def _on_key(self, event: events.Key) -> None:
        # Handled here and not by bindings: those would overtake keys that are still waiting.
        row, _ = self.cursor_location
        is_last_row = row == self.document.line_count - 1
        match event.key:
            case "up" | "down" | "tab" | "escape" | "enter" if self.is_completing:
                self.post_message(self.Hunted(event.key))
            case "enter":
                self.send()
            case "shift+enter" | "alt+enter" | "ctrl+j":
                self.insert("\n")
            case "up" if row == 0 and self._history:
                self._recall(-1)
            case "up" if row == 0 and not self.text:
                self.post_message(self.Left())
            case "question_mark" if not self.text:
                self.post_message(self.HelpWanted())
            case "down" if is_last_row and self._history:
                self._recall(1)
            case _:
                return
        event.stop()
        event.prevent_default()

    def action_cursor_page_up(self) -> None:
        self.post_message(self.Paged(-1))

    def action_cursor_page_down(self) -> None:
        self.post_message(self.Paged(1))

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
