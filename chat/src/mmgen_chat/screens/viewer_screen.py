"""One picture on the whole screen."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Center
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Static

from mmgen_chat.conversation import Picture
from mmgen_chat.safe_text import one_line
from mmgen_chat.widgets.picture_block import facts, opened
from mmgen_chat.widgets.picture_view import PictureView, Surface

__all__ = ["ViewerScreen"]


class ViewerScreen(Screen[str | None]):
    """A picture, as large as it goes; gives back what shall be done with it."""

    DEFAULT_CSS = """
    ViewerScreen Center { height: auto; }
    ViewerScreen .facts { dock: bottom; height: 2; padding: 0 1; background: $panel; }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,enter", "leave(None)", "Back"),
        Binding("s", "leave('save')", "Save"),
        Binding("c", "leave('copy')", "Copy"),
        Binding("o", "leave('open')", "Open"),
    ]

    def __init__(self, surface: Surface, picture: Picture) -> None:
        super().__init__()
        self._surface = surface
        self._picture = picture

    def compose(self) -> ComposeResult:
        rows = max(1, self.app.size.height - 2)
        with Center():
            yield PictureView(self._surface, opened(self._picture), max_rows=rows)
        shows = f"shows: {one_line(self._picture.alt)}" if self._picture.alt else ""
        keys = "Esc back · s save · c copy · o open"
        yield Static(Content(f"{facts(self._picture)}\n{keys}   {shows}"), classes="facts")

    def action_leave(self, wish: str | None) -> None:
        self.dismiss(wish)
