"""From events to a turn: what has been said and drawn so far, at any moment.

Whoever shows, stores or prints an answer takes the same events through the same function, so that
a broken answer is kept by all of them in the same way.
"""

from __future__ import annotations

from dataclasses import replace

from PIL import Image

from mmgen.pictures import png_bytes
from mmgen_chat.backend import (
    Event,
    ImageFinished,
    ImageProgress,
    ImageStarted,
    TextDelta,
    TurnFailed,
    TurnFinished,
)
from mmgen_chat.conversation import Picture, Turn, Words

__all__ = ["Answer"]


class Answer:
    """An assistant's turn while it grows."""

    def __init__(self, turn: Turn) -> None:
        """Begin with an empty turn, whose id and parent it keeps."""
        assert turn.role == "assistant", "only an assistant's turn grows by events"
        self.turn = replace(turn, state="running")
        self._ids: dict[int, str] = {}
        self._previews: dict[str, Image.Image] = {}

    def take(self, event: Event) -> Turn:
        """Take one more event; return the turn as it is now."""
        match event:
            case TextDelta(text):
                self._say(text)
            case ImageStarted():
                self._ids[event.index] = event.picture.id
                self._set(segments=(*self.turn.segments, event.picture))
            case ImageProgress():
                self._grow(event)
            case ImageFinished():
                self.turn = self.turn.with_picture(event.picture)
            case TurnFinished():
                self._set(
                    state="complete",
                    usage=event.usage,
                    applied=event.applied,
                    seconds=event.seconds,
                )
            case TurnFailed():
                self._break_off()
                self._set(state="failed", failure=str(event.error))
        return self.turn

    def stop(self) -> Turn:
        """Take note that a user stopped the answer; return the turn as it stays."""
        if self.turn.state == "running":
            self._break_off()
            self._set(state="stopped")
        return self.turn

    def _say(self, text: str) -> None:
        *rest, last = self.turn.segments or (Words(""),)
        if isinstance(last, Words):
            self._set(segments=(*rest, Words(last.text + text)))
        else:
            self._set(segments=(*self.turn.segments, Words(text)))

    def _grow(self, event: ImageProgress) -> None:
        picture = self._picture(event.index)
        assert picture.drawing is not None, "a growing picture is a drawn one"
        if event.preview is not None:
            self._previews[picture.id] = event.preview
        drawing = picture.drawing
        if event.num_done is not None:
            drawing = replace(drawing, num_done=event.num_done, num_codes=event.num_codes)
        codes = picture.codes if event.codes is None else event.codes
        self.turn = self.turn.with_picture(replace(picture, drawing=drawing, codes=codes))

    def _break_off(self) -> None:
        """Keep what was last seen of pictures that will not be finished."""
        for picture in self.turn.pictures:
            seen = self._previews.get(picture.id)
            if picture.png is None and seen is not None:
                kept = replace(picture, png=png_bytes(seen), size=(seen.height, seen.width))
                self.turn = self.turn.with_picture(kept)

    def _picture(self, index: int) -> Picture:
        return next(item for item in self.turn.pictures if item.id == self._ids[index])

    def _set(self, **changes: object) -> None:
        self.turn = replace(self.turn, **changes)  # type: ignore[arg-type]
