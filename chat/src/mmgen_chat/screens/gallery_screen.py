"""All pictures of all conversations, the newest first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import ItemGrid, Vertical, VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.screen import Screen
from textual.widgets import Static

from mmgen.errors import MmgenError
from mmgen_chat.messages import Trouble
from mmgen_chat.safe_text import one_line
from mmgen_chat.store import KeptPicture, Store
from mmgen_chat.widgets.picture_block import facts, opened
from mmgen_chat.widgets.picture_view import PictureView, Surface

__all__ = ["GalleryScreen"]

PAGE = 60
"""Pictures that are read at once; more are read as the end comes near."""
TILE_COLUMNS = 20
TILE_ROWS = 9


class Tile(Vertical, can_focus=True):
    """One picture of the gallery."""

    DEFAULT_CSS = """
    Tile { height: auto; width: 1fr; padding: 0 0 1 1; }
    Tile:focus { background: $boost; }
    Tile > .name { height: 1; width: 1fr; color: $text-muted; text-wrap: nowrap;
                  text-overflow: ellipsis; }
    Tile:focus > .name { color: $text; text-style: bold; }
    """

    class Focused(Message):
        """A picture was reached."""

        def __init__(self, tile: Tile) -> None:
            super().__init__()
            self.tile = tile

    def __init__(self, surface: Surface, kept: KeptPicture) -> None:
        super().__init__()
        self.kept = kept
        self._surface = surface

    def compose(self) -> ComposeResult:
        yield PictureView(
            self._surface,
            opened(self.kept.picture),
            max_rows=TILE_ROWS,
            max_columns=TILE_COLUMNS - 2,
        )
        drawing = self.kept.picture.drawing
        yield Static(Content(one_line(drawing.prompt if drawing else "")), classes="name")

    def on_focus(self) -> None:
        self.post_message(self.Focused(self))

    def on_click(self) -> None:
        self.focus()


class _PageRead(Message):
    """A page of pictures was read."""

    def __init__(self, page: Sequence[KeptPicture]) -> None:
        super().__init__()
        self.page = page


class GalleryScreen(Screen[KeptPicture | None]):
    """A grid of pictures; gives back the one whose conversation shall be opened."""

    DEFAULT_CSS = """
    GalleryScreen VerticalScroll { scrollbar-size-vertical: 1; }
    GalleryScreen ItemGrid { height: auto; }
    GalleryScreen .facts { dock: bottom; height: 2; padding: 0 1; background: $panel; }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "leave", "Back"),
        Binding("left", "move(-1)", show=False),
        Binding("right", "move(1)", show=False),
        Binding("up", "move_row(-1)", show=False),
        Binding("down", "move_row(1)", show=False),
        Binding("enter", "do('view')", "Look closer"),
        Binding("g", "choose", "Its conversation"),
        Binding("s", "do('save')", "Save"),
        Binding("c", "do('copy')", "Copy"),
        Binding("o", "do('open')", "Open"),
    ]

    class Asked(Message):
        """Something shall be done with a picture."""

        def __init__(self, gallery: GalleryScreen, kept: KeptPicture, what: str) -> None:
            super().__init__()
            self.gallery = gallery
            self.kept = kept
            self.what = what

    def __init__(self, surface: Surface, store: Store) -> None:
        super().__init__()
        self._surface = surface
        self._store = store
        self._is_reading = False
        self._is_all = False

    def compose(self) -> ComposeResult:
        with VerticalScroll(can_focus=False):
            yield ItemGrid(min_column_width=TILE_COLUMNS)
        yield Static("reading…", classes="facts", markup=False)

    def on_mount(self) -> None:
        self.read(0)

    @property
    def tiles(self) -> list[Tile]:
        """The pictures that are shown, in order."""
        return list(self.query(Tile))

    @work(exclusive=True, thread=True)
    def read(self, offset: int) -> None:
        """Read one more page in the background."""
        try:
            page = self._store.pictures(limit=PAGE, offset=offset)
        except MmgenError as error:
            self.post_message(Trouble(str(error)))
            return
        self.post_message(_PageRead(page))

    @on(_PageRead)
    async def _page_read(self, message: _PageRead) -> None:
        page = message.page
        self._is_all = len(page) < PAGE
        self._is_reading = False
        is_first = not self.tiles
        tiles = [Tile(self._surface, kept) for kept in page]
        await self.query_one(ItemGrid).mount_all(tiles)
        if is_first and tiles:
            tiles[0].focus()
        elif is_first:
            self.tell("no pictures yet; draw something first")

    def tell(self, text: str) -> None:
        """Say something in the lines at the bottom."""
        keys = "Enter closer · g its conversation · s save · c copy · o open · Esc back"
        self.query_one(".facts", Static).update(Content(f"{one_line(text)}\n{keys}"))

    @on(Trouble)
    def _trouble(self, message: Trouble) -> None:
        self.tell(message.text)

    @on(Tile.Focused)
    def _reached(self, message: Tile.Focused) -> None:
        self.tell(facts(message.tile.kept.picture))
        tiles = self.tiles
        near_end = tiles and tiles.index(message.tile) > len(tiles) - PAGE // 3
        if near_end and not self._is_all and not self._is_reading:
            self._is_reading = True
            self.read(len(tiles))

    def action_move(self, step: int) -> None:
        tiles = self.tiles
        if tiles and isinstance(self.focused, Tile):
            index = tiles.index(self.focused) + step
            tiles[max(0, min(index, len(tiles) - 1))].focus()

    def action_move_row(self, step: int) -> None:
        tiles = self.tiles
        if not tiles:
            return
        columns = sum(tile.region.y == tiles[0].region.y for tile in tiles)
        self.action_move(step * max(1, columns))

    def action_do(self, what: str) -> None:
        if isinstance(self.focused, Tile):
            self.post_message(self.Asked(self, self.focused.kept, what))

    def action_choose(self) -> None:
        if isinstance(self.focused, Tile):
            self.dismiss(self.focused.kept)

    def action_leave(self) -> None:
        self.dismiss(None)
