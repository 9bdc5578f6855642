"""A picture with what belongs to it: how it was drawn, what it shows, how far it is."""

from __future__ import annotations

import io
from typing import ClassVar

from PIL import Image
from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import Static

from mmgen_chat.backend import ImageProgress
from mmgen_chat.conversation import Picture
from mmgen_chat.safe_text import one_line
from mmgen_chat.widgets.picture_view import PictureView, Surface

__all__ = ["PictureBlock", "facts", "opened"]

_BAR_CELLS = 12


def opened(picture: Picture) -> Image.Image | None:
    """Return the rendering of a picture, or None where it has none that can be read."""
    if picture.png is None:
        return None
    try:
        with Image.open(io.BytesIO(picture.png)) as image:
            return image.convert("RGB")
    except (OSError, ValueError):
        return None


def facts(picture: Picture) -> str:
    """Return one line on how a picture was drawn, or where it came from."""
    drawing = picture.drawing
    if drawing is None:
        size = f" · {picture.size[1]}×{picture.size[0]}" if picture.size else ""
        return one_line(picture.source or "attached") + size
    parts = [f"“{one_line(drawing.prompt)}”"]
    if drawing.seed is not None:
        parts.append(f"seed {drawing.seed}")
    if drawing.guidance is not None:
        parts.append(drawing.guidance)
    if drawing.num_done is not None:
        whole = drawing.is_complete or drawing.num_codes is None
        of = "" if whole else f" of {drawing.num_codes}"
        parts.append(f"{drawing.num_done}{of} tokens")
    if drawing.seconds is not None:
        parts.append(f"{drawing.seconds:.1f} s")
    return " · ".join(parts)


class PictureBlock(Vertical, can_focus=True):
    """A picture of a turn."""

    DEFAULT_CSS = """
    PictureBlock { height: auto; width: 1fr; padding: 0 0 0 1; border-left: blank; }
    PictureBlock:focus { border-left: thick $accent; }
    PictureBlock > .facts { color: $text-muted; height: auto; }
    PictureBlock > .alt { color: $text-muted; text-style: italic; height: auto; }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "ask('view')", "Look closer"),
        Binding("s", "ask('save')", "Save"),
        Binding("c", "ask('copy')", "Copy"),
        Binding("o", "ask('open')", "Open"),
        Binding("d", "ask('describe')", "Describe"),
        Binding("r", "ask('refine')", "Refine"),
    ]  # fmt: skip

    class Asked(Message):
        """Something shall be done with a picture."""

        def __init__(self, picture: Picture, what: str) -> None:
            super().__init__()
            self.picture = picture
            self.what = what

    def __init__(self, surface: Surface, picture: Picture, *, max_rows: int | None = None) -> None:
        super().__init__()
        self.picture = picture
        self._surface = surface
        height, width = picture.size or (64, 64)
        self._view = PictureView(
            surface, opened(picture), pixels=(width, height), max_rows=max_rows
        )
        self._facts = Static(Content(facts(picture)), classes="facts")
        self._alt = Static("", classes="alt")
        self._is_growing = False

    def compose(self) -> ComposeResult:
        yield self._view
        yield self._facts
        yield self._alt

    def on_mount(self) -> None:
        self._show_alt()

    def grow(self, event: ImageProgress) -> None:
        """Show how far the picture is."""
        if event.preview is not None:
            self._view.show(event.preview)
        if event.num_done is not None and event.num_codes:
            full = round(_BAR_CELLS * event.num_done / event.num_codes)
            bar = "█" * full + "░" * (_BAR_CELLS - full)
            done = f"{event.num_done:>{len(str(event.num_codes))}}"
            # The line keeps its width, so only the first one can move what is on the screen.
            self._facts.update(
                Content(f"{bar} {done} of {event.num_codes} tokens"), layout=not self._is_growing
            )
            self._is_growing = True

    def take(self, picture: Picture) -> None:
        """Show a later state of the picture."""
        is_other = picture.png is not self.picture.png
        self.picture = picture
        image = opened(picture) if is_other else None
        if image is not None:
            self._view.show(image)
        self._facts.update(Content(facts(picture)))
        self._is_growing = False
        self._show_alt()

    def on_click(self, event: events.Click) -> None:
        self.focus()
        if event.chain == 2:
            self.action_ask("save")

    def action_ask(self, what: str) -> None:
        self.post_message(self.Asked(self.picture, what))

    def _show_alt(self) -> None:
        alt = self.picture.alt
        self._alt.display = bool(alt)
        self._alt.update(Content(f"shows: {one_line(alt)}" if alt else ""))
        # What a screen reader of the terminal is given when the picture has the focus.
        self.tooltip = Content(one_line(alt)) if alt else None
