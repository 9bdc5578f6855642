"""The settings beside the conversation: each a line to type into, checked as it is left."""

from __future__ import annotations

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.widgets import Input, Static

from mmgen_chat.backend import BackendInfo
from mmgen_chat.controls import CONTROLS, Controls
from mmgen_chat.safe_text import one_line

__all__ = ["ControlPanel"]


class ControlPanel(VerticalScroll, can_focus=False):
    """What answers are made with."""

    DEFAULT_CSS = """
    ControlPanel { width: 32; height: 1fr; background: $panel; padding: 0 1;
                   display: none; scrollbar-size-vertical: 1; }
    ControlPanel .heading { color: $text-muted; height: auto; margin: 0 0 1 0; }
    ControlPanel Horizontal { height: 1; }
    ControlPanel .label { width: 13; height: 1; }
    ControlPanel Input { border: none; height: 1; padding: 0; width: 1fr; background: $surface; }
    ControlPanel Input:focus { border: none; background: $boost; }
    ControlPanel Input.-bad { color: $text-error; }
    ControlPanel .hint { color: $text-muted; height: auto; margin: 1 0 0 0; }
    """

    class Changed(Message):
        """A line was left with another value."""

        def __init__(self, name: str, text: str) -> None:
            super().__init__()
            self.name = name
            self.text = text

    def __init__(self) -> None:
        super().__init__()
        self._heading = Static("", classes="heading")

    def compose(self) -> ComposeResult:
        yield self._heading
        for name, control in CONTROLS.items():
            with Horizontal():
                yield Static(control.label, classes="label")
                yield Input(placeholder="auto", id=f"control-{name}", compact=True)
        yield Static("Enter takes a value, nothing or `auto` leaves it to the model. "
                     "Esc goes back.", classes="hint")  # fmt: skip

    def show(self, controls: Controls, info: BackendInfo | None) -> None:
        """Show the controls as they are."""
        for name in CONTROLS:
            field = self.query_one(f"#control-{name}", Input)
            value = controls.shown(name)
            with field.prevent(Input.Changed):
                field.value = "" if value == "auto" else value
            field.remove_class("-bad")
        if info is None:
            self._heading.update("no model yet")
            return
        lines = [one_line(info.model), one_line(info.engine)]
        for tokenizer in info.tokenizers:
            sizes = ", ".join(f"{width}x{height}" for height, width in tokenizer.sizes)
            lines.append(f"{one_line(tokenizer.name)}: {sizes}".rstrip(": "))
        self._heading.update(Content("\n".join(lines)))

    def focus_first(self) -> None:
        """Go to the first line."""
        self.query(Input).first().focus()

    def refuse(self, name: str) -> None:
        """Mark a line whose value was refused."""
        self.query_one(f"#control-{name}", Input).add_class("-bad")

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self._tell(event.input)

    @on(Input.Blurred)
    def _left(self, event: Input.Blurred) -> None:
        event.stop()
        self._tell(event.input)

    def _tell(self, field: Input) -> None:
        name = (field.id or "").removeprefix("control-")
        self.post_message(self.Changed(name, field.value))
