"""A picture in the flow of a conversation, which can be replaced in place while it is drawn.

Where pixels are laid over blank cells, they are written after Textual has written the cells; a
new state of the same picture is then written over the old one, without a moment of emptiness.
"""

from __future__ import annotations

from collections.abc import Callable

from PIL import Image
from textual.geometry import Region, Size
from textual.strip import Strip
from textual.widget import Widget

from mmgen_chat.graphics import AbstractPainting, Terminal, fitted, paint
from mmgen_chat.graphics.escapes import at, synchronized

__all__ = ["PictureView", "Surface"]

_BLANK = (128, 128, 128)
_MARGIN_ROWS = 10
"""Rows of the screen that a picture leaves to its surroundings."""


class Surface:
    """The terminal as pictures are put on it; one for the whole application."""

    def __init__(self, terminal: Terminal, write: Callable[[str], None]) -> None:
        """Show pictures as a terminal can; `write` hands it data besides Textual's own."""
        self.terminal = terminal
        self.write = write
        self._due: dict[PictureView, None] = {}

    def expect(self, view: PictureView) -> None:
        """Take note that the cells of a view are about to be written."""
        self._due[view] = None

    def flush(self) -> None:
        """Lay pixels over the cells that were written since the last time."""
        due, self._due = list(self._due), {}
        for view in due:
            view.lay_over()


class PictureView(Widget):
    """One picture, as large as fits well."""

    DEFAULT_CSS = """
    PictureView { width: auto; height: auto; }
    """

    def __init__(
        self,
        surface: Surface,
        image: Image.Image | None = None,
        *,
        pixels: tuple[int, int] = (64, 64),
        max_rows: int | None = None,
        max_columns: int | None = None,
    ) -> None:
        """Show a picture, or an empty canvas of `pixels` (width, height) until there is one."""
        super().__init__()
        self._surface = surface
        self._image = image or Image.new("RGB", pixels, _BLANK)
        self._max_rows = max_rows
        self._max_columns = max_columns
        self._painting: AbstractPainting | None = None
        self._crop: Region | None = None

    @property
    def image(self) -> Image.Image:
        """What is shown."""
        return self._image

    def show(self, image: Image.Image) -> None:
        """Put another state of the picture in the place of this one."""
        is_same_shape = image.width * self._image.height == image.height * self._image.width
        self._image = image
        if not is_same_shape:
            self.refresh(layout=True)
        if self._painting is not None:
            self._repaint(self._painting.columns, self._painting.rows)

    def change_terminal(self) -> None:
        """Paint anew after the surface's terminal has changed."""
        self._drop()
        self.refresh(layout=True)

    def get_content_width(self, container: Size, viewport: Size) -> int:
        return self._fitted(container, viewport)[0]

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return self._fitted(container, viewport)[1]

    def render_line(self, y: int) -> Strip:
        painting = self._painting_for(self.size)
        return painting.strip(y) if y < painting.rows else Strip.blank(self.size.width)

    def render_lines(self, crop: Region) -> list[Strip]:
        strips = super().render_lines(crop)
        self._crop = crop
        if self._painting is not None and self._painting.is_overlaid:
            self._surface.expect(self)
        return strips

    def on_unmount(self) -> None:
        self._drop()

    def lay_over(self) -> None:
        """Write the visible part of the picture over its cells."""
        painting, crop = self._painting, self._crop
        if painting is None or crop is None or not self.is_on_screen:
            return
        place = self.region
        data = painting.overlay(crop)
        self._surface.write(synchronized(at(place.x + crop.x, place.y + crop.y, data)))

    @property
    def is_on_screen(self) -> bool:
        """Whether the view is shown now, at least in part."""
        return (
            self.is_mounted
            and self.screen is self.app.screen
            and self in self.screen._compositor.visible_widgets
        )

    def _repaint(self, columns: int, rows: int) -> None:
        old = self._painting
        self._painting = paint(self._image, self._surface.terminal, columns, rows)
        self._open(self._painting)
        if self._painting.is_overlaid:
            self.lay_over()
        else:
            self.refresh()
        if old is not None and old.closing:
            # Only when the cells no longer speak of it.
            self.call_after_refresh(self._surface.write, old.closing)

    def _painting_for(self, size: Size) -> AbstractPainting:
        painting = self._painting
        if painting is None or (painting.columns, painting.rows) != (size.width, size.height):
            self._drop()
            painting = paint(self._image, self._surface.terminal, size.width, size.height)
            self._open(painting)
            self._painting = painting
        return painting

    def _open(self, painting: AbstractPainting) -> None:
        if painting.opening:
            self._surface.write(painting.opening)

    def _drop(self) -> None:
        if self._painting is not None and self._painting.closing:
            self._surface.write(self._painting.closing)
        self._painting = None

    def _fitted(self, container: Size, viewport: Size) -> tuple[int, int]:
        rows = self._max_rows or max(4, viewport.height - _MARGIN_ROWS)
        columns = max(1, min(container.width, self._max_columns or container.width))
        return fitted(self._image.size, self._surface.terminal, columns, rows)
