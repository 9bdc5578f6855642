"""What workers tell the screens. Workers only post these; handlers change what is shown."""

from __future__ import annotations

from collections.abc import Sequence

from textual.message import Message

from mmgen.errors import MmgenError
from mmgen_chat.backend import BackendInfo, Event
from mmgen_chat.conversation import Picture

__all__ = [
    "AnswerEvent",
    "AnswerOver",
    "BackendFailed",
    "BackendReady",
    "Judged",
    "PictureDescribed",
    "PicturesFound",
    "Trouble",
]


class BackendReady(Message):
    """The model is loaded, or the server reached."""

    def __init__(self, info: BackendInfo) -> None:
        super().__init__()
        self.info = info


class BackendFailed(Message):
    """The model cannot be used."""

    def __init__(self, error: MmgenError) -> None:
        super().__init__()
        self.error = error


class AnswerEvent(Message):
    """Something happened to an answer."""

    def __init__(self, turn_id: str, event: Event) -> None:
        super().__init__()
        self.turn_id = turn_id
        self.event = event


class AnswerOver(Message):
    """Nothing more will happen to an answer, whether it is complete, failed or was stopped."""

    def __init__(self, turn_id: str) -> None:
        super().__init__()
        self.turn_id = turn_id


class PictureDescribed(Message):
    """The model has said what a picture shows."""

    def __init__(self, picture: Picture, alt: str) -> None:
        super().__init__()
        self.picture = picture
        self.alt = alt


class PicturesFound(Message):
    """The files of pictures in a folder are known."""

    def __init__(self, paths: Sequence[str]) -> None:
        super().__init__()
        self.paths = paths


class Judged(Message):
    """The model has judged the pictures of several turns."""

    def __init__(self, scores: Sequence[tuple[str, float]], measure: str) -> None:
        """Args:
        scores: ids of turns and how good their pictures are; larger is better.
        measure: what was measured, in words.
        """
        super().__init__()
        self.scores = scores
        self.measure = measure


class Trouble(Message):
    """Something did not work; one line for the user."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text
