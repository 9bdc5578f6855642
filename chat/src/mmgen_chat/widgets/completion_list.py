"""The ways in which a half-typed word can go on, above the prompt."""

from __future__ import annotations

from collections.abc import Sequence

from textual.content import Content
from textual.message import Message
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from mmgen_chat.completing import Candidate
from mmgen_chat.safe_text import one_line

__all__ = ["CompletionList"]


class CompletionList(OptionList, can_focus=False):
    """A list without a focus of its own: the prompt hands it its keys."""

    DEFAULT_CSS = """
    CompletionList { height: auto; max-height: 7; border: none; padding: 0 1; display: none;
                     background: $panel; scrollbar-size-vertical: 1; }
    """

    class Taken(Message):
        """A way to go on was chosen."""

        def __init__(self, candidate: Candidate, is_sent: bool) -> None:
            super().__init__()
            self.candidate = candidate
            self.is_sent = is_sent
            """Whether Enter was pressed, which also sends what is complete."""

    def __init__(self) -> None:
        super().__init__(compact=True, markup=False)
        self._candidates: Sequence[Candidate] = ()

    @property
    def candidates(self) -> Sequence[Candidate]:
        """What is offered."""
        return self._candidates

    def offer(self, candidates: Sequence[Candidate]) -> None:
        """Show ways to go on; nothing hides the list."""
        self._candidates = candidates
        self.clear_options()
        width = max((len(item.text) for item in candidates), default=0)
        width = min(width, 40)
        for item in candidates:
            line = Content.assemble(
                one_line(item.text).ljust(width), "  ", (one_line(item.detail), "$text-muted")
            )
            self.add_option(Option(line))
        self.display = bool(candidates)
        if candidates:
            self.highlighted = 0

    def press(self, key: str) -> None:
        """Do what a key means here."""
        match key:
            case "up":
                self.action_cursor_up()
            case "down":
                self.action_cursor_down()
            case "escape":
                self.offer(())
            case "tab" | "enter" if self.highlighted is not None:
                candidate = self._candidates[self.highlighted]
                self.post_message(self.Taken(candidate, key == "enter"))

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        self.post_message(self.Taken(self._candidates[event.option_index], False))
