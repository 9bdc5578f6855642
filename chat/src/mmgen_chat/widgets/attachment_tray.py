"""Pictures that will go with what the user says next, each small and with a way to remove it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import HorizontalScroll, Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import Static

from mmgen_chat.conversation import Picture
from mmgen_chat.safe_text import one_line
from mmgen_chat.widgets.picture_block import opened
from mmgen_chat.widgets.picture_view import PictureView, Surface

__all__ = ["AttachmentTray", "Thumbnail"]

THUMBNAIL_ROWS = 4
THUMBNAIL_COLUMNS = 16


class Thumbnail(Vertical, can_focus=True):
    """One attached picture."""

    DEFAULT_CSS = """
    Thumbnail { width: auto; height: auto; padding: 0 1; }
    Thumbnail:focus { background: $boost; }
    Thumbnail > .name { width: 16; height: 1; color: $text-muted; text-wrap: nowrap;
                       text-overflow: ellipsis; }
    Thumbnail:focus > .name { color: $text; }
    """

    BINDINGS: ClassVar[list[BindingType]] = [Binding("delete,backspace,x", "remove", "Take away")]

    class Removed(Message):
        """A picture shall not be sent after all."""

        def __init__(self, picture: Picture) -> None:
            super().__init__()
            self.picture = picture

    def __init__(self, surface: Surface, picture: Picture, number: int) -> None:
        super().__init__()
        self.picture = picture
        self._surface = surface
        self._number = number

    def compose(self) -> ComposeResult:
        yield PictureView(
            self._surface,
            opened(self.picture),
            max_rows=THUMBNAIL_ROWS,
            max_columns=THUMBNAIL_COLUMNS,
        )
        name = one_line(self.picture.source or "picture").rpartition("/")[2]
        yield Static(Content(f"{self._number} ✕ {name}"), classes="name")

    def on_click(self, event: events.Click) -> None:
        if event.widget is not None and event.widget.has_class("name"):
            self.action_remove()

    def action_remove(self) -> None:
        self.post_message(self.Removed(self.picture))


class AttachmentTray(HorizontalScroll, can_focus=False):
    """All of them, in the order in which they will be sent."""

    DEFAULT_CSS = """
    AttachmentTray { height: auto; max-height: 6; display: none; scrollbar-size-horizontal: 1; }
    """

    def __init__(self, surface: Surface) -> None:
        super().__init__()
        self._surface = surface

    async def show(self, pictures: Sequence[Picture]) -> None:
        """Show these pictures and no others."""
        await self.remove_children()
        self.display = bool(pictures)
        await self.mount_all(
            Thumbnail(self._surface, picture, number)
            for number, picture in enumerate(pictures, start=1)
        )
