"""What the model does once an answer is there: say what pictures show, and choose the best.

Both run in the background, post what they found, and give way to the next answer: describing
stops when one begins and goes on after it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from textual.message_pump import MessagePump
from textual.widget import Widget

from mmgen.errors import MmgenError
from mmgen_chat.backend import AbstractBackend, BackendInfo
from mmgen_chat.conversation import Picture, Turn
from mmgen_chat.judging import judge
from mmgen_chat.messages import Judged, PictureDescribed, Trouble

__all__ = ["Afterwards"]


class Afterwards:
    """Background work on the pictures of answers."""

    def __init__(self, backend: Callable[[], AbstractBackend]) -> None:
        """Ask whatever `backend` gives at the time."""
        self._backend = backend
        self._refused: set[str] = set()

    def describe(self, owner: Widget, info: BackendInfo, pictures: Iterable[Picture]) -> None:
        """Let the model say what drawn pictures show that nobody has described yet."""
        waiting = [
            picture
            for picture in pictures
            if picture.is_drawn
            and picture.alt is None
            and picture.png is not None
            and picture.id not in self._refused
        ]
        if waiting and "look" in info.abilities:
            work = self._describe(owner, waiting)
            owner.run_worker(work, group="describe", exclusive=True)

    def judge(self, owner: Widget, info: BackendInfo, turns: Sequence[Turn], prompt: str) -> None:
        """Let the model judge the pictures of versions of a turn."""
        owner.run_worker(self._judge(owner, info, turns, prompt), group="judge", exclusive=True)

    async def _describe(self, owner: MessagePump, pictures: Sequence[Picture]) -> None:
        for picture in pictures:
            try:
                alt = await self._backend().caption(picture)
            except MmgenError as error:
                self._refused.add(picture.id)
                owner.post_message(Trouble(f"no words for this picture: {error}"))
            else:
                owner.post_message(PictureDescribed(picture, alt))

    async def _judge(
        self, owner: MessagePump, info: BackendInfo, turns: Sequence[Turn], prompt: str
    ) -> None:
        pictures = [turn.pictures[-1] for turn in turns]
        try:
            scores, measure = await judge(self._backend(), info, pictures, prompt)
        except MmgenError as error:
            owner.post_message(Trouble(f"the pictures could not be judged: {error}"))
            return
        ids = [turn.id for turn in turns]
        owner.post_message(Judged(list(zip(ids, scores, strict=True)), measure))
