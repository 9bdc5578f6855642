"""All conversations: find one, open it, or begin another."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from mmgen.errors import MmgenError
from mmgen_chat.conversation import now
from mmgen_chat.messages import Trouble
from mmgen_chat.safe_text import one_line
from mmgen_chat.store import Entry, Store

__all__ = ["LibraryScreen"]


class LibraryScreen(Screen[str | None]):
    """Conversations, the last changed first; gives back the id of the chosen one."""

    DEFAULT_CSS = """
    LibraryScreen Input { margin: 0 0 1 0; padding: 0 1; }
    LibraryScreen OptionList { height: 1fr; border: none; padding: 0 1; }
    LibraryScreen .keys { dock: bottom; height: 1; padding: 0 1; background: $panel; }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "Back"),
        Binding("delete", "delete", "Delete"),
        Binding("f5", "refresh", "Read again", show=False),
    ]

    def __init__(self, store: Store, search: str = "") -> None:
        super().__init__()
        self._store = store
        self._search = search
        self._entries: Sequence[Entry] = ()
        self._doomed: str | None = None

    def compose(self) -> ComposeResult:
        yield Input(
            self._search, placeholder="find words in titles, turns and pictures", compact=True
        )
        yield OptionList(compact=True, markup=False)
        yield Static(_KEYS, classes="keys", markup=False)

    def on_mount(self) -> None:
        self.query_one(Input).focus()
        self.read()

    @work(exclusive=True, thread=True)
    def read(self) -> None:
        """Read the list in the background."""
        try:
            entries = self._store.entries(self._search)
        except MmgenError as error:
            self.post_message(Trouble(str(error)))
            return
        self.app.call_from_thread(self._show, entries)

    def _show(self, entries: Sequence[Entry]) -> None:
        self._entries = entries
        options = self.query_one(OptionList)
        options.clear_options()
        for entry in entries:
            pictures = f", {entry.num_pictures} pictures" if entry.num_pictures else ""
            detail = f"{_ago(entry.changed)} · {entry.num_turns} turns{pictures}"
            title = one_line(entry.title, max_length=44) or "untitled"
            options.add_option(Option(Content.assemble(f"{title:<44} ", (detail, "$text-muted"))))
        if entries:
            options.highlighted = 0

    @on(Input.Changed)
    def _find(self, event: Input.Changed) -> None:
        self._search = event.value
        self.read()

    @on(Input.Submitted)
    def _enter(self) -> None:
        self._choose(self.query_one(OptionList).highlighted)

    @on(OptionList.OptionSelected)
    def _selected(self, event: OptionList.OptionSelected) -> None:
        self._choose(event.option_index)

    @on(Trouble)
    def _trouble(self, message: Trouble) -> None:
        self.query_one(".keys", Static).update(Content(one_line(message.text)))

    def key_down(self) -> None:
        if isinstance(self.focused, Input):
            self.query_one(OptionList).focus()

    def action_leave(self) -> None:
        self.dismiss(None)

    def action_delete(self) -> None:
        """Delete the highlighted conversation, when asked twice."""
        index = self.query_one(OptionList).highlighted
        if index is None or not self._entries:
            return
        entry = self._entries[index]
        keys = self.query_one(".keys", Static)
        if self._doomed != entry.id:
            self._doomed = entry.id
            title = one_line(entry.title, max_length=30)
            keys.update(Content(f"Del once more deletes “{title}” and its pictures for good"))
            return
        self._doomed = None
        try:
            self._store.delete(entry.id)
        except MmgenError as error:
            self.post_message(Trouble(str(error)))
            return
        keys.update(_KEYS)
        self.read()

    def _choose(self, index: int | None) -> None:
        if index is not None and self._entries:
            self.dismiss(self._entries[index].id)


_KEYS = "Enter opens · ↓ to the list · Del deletes · Esc goes back"


def _ago(moment: datetime) -> str:
    seconds = max(0.0, (now() - moment).total_seconds())
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{int(seconds // length)} {unit} ago"
    return "just now"
