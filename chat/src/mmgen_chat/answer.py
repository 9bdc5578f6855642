"""From events to a turn: what has been said and drawn so far, at any moment.

Whoever shows, stores or prints an answer takes the same events through the same function, so that
a broken answer is kept by all of them in the same way.
"""

from __future__ import annotations

from dataclasses import replace

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
                self._set(state="failed", failure=str(event.error))
        return self.turn

    def stop(self) -> Turn:
        """Take note that a user stopped the answer; return the turn as it stays."""
        if self.turn.state == "running":
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
        drawing = replace(picture.drawing, num_done=event.num_done, num_codes=event.num_codes)
        codes = picture.codes if event.codes is None else event.codes
        self.turn = self.turn.with_picture(replace(picture, drawing=drawing, codes=codes))

    def _picture(self, index: int) -> Picture:
        return next(item for item in self.turn.pictures if item.id == self._ids[index])

    def _set(self, **changes: object) -> None:
        self.turn = replace(self.turn, **changes)  # type: ignore[arg-type]
