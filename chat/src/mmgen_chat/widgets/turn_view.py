"""One turn of the conversation: its words as Markdown, its pictures in their places."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import ItemGrid, Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import Markdown, Static
from textual.widgets.markdown import MarkdownStream

from mmgen_chat.backend import (
    Event,
    ImageFinished,
    ImageProgress,
    ImageStarted,
    TextDelta,
    TurnFailed,
    TurnFinished,
    TurnsLeftOut,
    TurnStarted,
)
from mmgen_chat.conversation import Picture, Turn, Words
from mmgen_chat.safe_text import one_line, printable
from mmgen_chat.widgets.picture_block import PictureBlock
from mmgen_chat.widgets.picture_view import Surface

__all__ = ["MIN_COLUMNS", "TurnView"]

MIN_COLUMNS = 18
"""Cells that a picture beside others has at least."""


class TurnView(Vertical, can_focus=True):
    """A turn, complete or growing."""

    DEFAULT_CSS = """
    TurnView { height: auto; padding: 0 1 1 1; border-left: blank; }
    TurnView:focus { border-left: thick $accent; }
    TurnView > .who { color: $text-muted; height: 1; }
    TurnView.user > .who { color: $accent; }
    TurnView > .note { color: $text-muted; height: auto; }
    TurnView > .note.failed { color: $text-error; }
    TurnView Markdown { padding: 0; margin: 0; height: auto; background: transparent; }
    TurnView MarkdownParagraph { margin: 0; }
    TurnView .row { height: auto; }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("e", "ask('edit')", "Edit"),
        Binding("a", "ask('again')", "Again"),
    ]

    class Asked(Message):
        """Something shall be done with a turn."""

        def __init__(self, turn: Turn, what: str) -> None:
            super().__init__()
            self.turn = turn
            self.what = what

    def __init__(
        self,
        surface: Surface,
        turn: Turn,
        *,
        version: tuple[int, int] = (1, 1),
        max_rows: int | None = None,
    ) -> None:
        """Show a turn.

        Args:
            version: which of how many versions of the turn this is.
        """
        super().__init__(classes=turn.role)
        self.turn = turn
        self._surface = surface
        self._version = version
        self._speaker = "you" if turn.role == "user" else "model"
        if turn.applied is not None:
            self._speaker = turn.applied.model
        self._max_rows = max_rows
        self._who = Static("", classes="who")
        self._note = Static("", classes="note")
        self._stream: MarkdownStream | None = None
        self._blocks: dict[str, PictureBlock] = {}
        self._indices: dict[int, str] = {}
        self._row: ItemGrid | None = None

    def compose(self) -> ComposeResult:
        yield self._who
        segments = list(self.turn.segments)
        while segments:
            item = segments.pop(0)
            if isinstance(item, Words):
                if item.text.strip():
                    yield _markdown(printable(item.text))
                continue
            pictures = [item]
            while segments and isinstance(following := segments[0], Picture):
                pictures.append(following)
                segments.pop(0)
            with ItemGrid(classes="row", min_column_width=MIN_COLUMNS):
                for picture in pictures:
                    yield self._block(picture)
        yield self._note

    def on_mount(self) -> None:
        self.set_version(*self._version)
        self._show_state()

    def action_ask(self, what: str) -> None:
        self.post_message(self.Asked(self.turn, what))

    def set_version(self, number: int, of: int) -> None:
        """Say which version of the turn this is."""
        self._version = (number, of)
        name = one_line(self._speaker)
        self._who.update(Content(name if of == 1 else f"{name}  ‹ {number}/{of} ›"))

    @property
    def blocks(self) -> tuple[PictureBlock, ...]:
        """The pictures as they are shown."""
        return tuple(self._blocks.values())

    async def take(self, event: Event, turn: Turn) -> None:
        """Show what an event changed.

        Args:
            turn: the turn with the event taken in.
        """
        self.turn = turn
        match event:
            case TurnStarted(model=model):
                self._speaker = model
                self.set_version(*self._version)
            case TextDelta(text):
                await self._say(text)
            case ImageStarted():
                await self._begin_picture(event)
            case ImageProgress():
                self._blocks[self._indices[event.index]].grow(event)
            case ImageFinished():
                self._blocks[event.picture.id].take(event.picture)
            case TurnsLeftOut():
                count = len(event.turn_ids)
                self.note(f"{count} earlier turns do not fit the model's context and were left out")
            case TurnFinished() | TurnFailed():
                await self.settle(turn)
            case _:
                pass

    async def settle(self, turn: Turn) -> None:
        """Show the turn as it stays."""
        self.turn = turn
        await self._end_stream()
        for picture in turn.pictures:
            if picture.id in self._blocks:
                self._blocks[picture.id].take(picture)
        self._show_state()

    def show_picture(self, picture: Picture) -> None:
        """Show a later state of one of the turn's pictures."""
        self.turn = self.turn.with_picture(picture)
        if picture.id in self._blocks:
            self._blocks[picture.id].take(picture)

    def note(self, text: str, *, is_failure: bool = False) -> None:
        """Say something about the turn, below it."""
        self._note.set_class(is_failure, "failed")
        self._note.display = bool(text)
        self._note.update(Content(one_line(text)))

    async def on_unmount(self) -> None:
        await self._end_stream()

    def _block(self, picture: Picture) -> PictureBlock:
        block = PictureBlock(self._surface, picture, max_rows=self._max_rows)
        self._blocks[picture.id] = block
        return block

    async def _say(self, text: str) -> None:
        self._row = None
        if self._stream is None:
            markdown = _markdown("")
            await self.mount(markdown, before=self._note)
            self._stream = Markdown.get_stream(markdown)
        await self._stream.write(printable(text))

    async def _begin_picture(self, event: ImageStarted) -> None:
        await self._end_stream()
        self._indices[event.index] = event.picture.id
        block = self._block(event.picture)
        if self._row is None:
            self._row = ItemGrid(classes="row", min_column_width=MIN_COLUMNS)
            await self.mount(self._row, before=self._note)
        await self._row.mount(block)

    async def _end_stream(self) -> None:
        if self._stream is not None:
            stream, self._stream = self._stream, None
            await stream.stop()

    def _show_state(self) -> None:
        turn = self.turn
        if turn.state == "failed":
            self.note(
                f"broke off: {turn.failure or 'no reason given'} — /retry tries again",
                is_failure=True,
            )
        elif turn.state == "stopped":
            self.note("stopped")
        elif turn.state == "running":
            self.note("…")
        else:
            self.note("")


def _markdown(text: str) -> Markdown:
    return Markdown(text, open_links=False)
