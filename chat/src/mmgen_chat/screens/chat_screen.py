"""The conversation: turns above, the prompt below.

Workers ask the backend and post what comes; the handlers here take it into the conversation, show
it and keep it. What a command does is in `mmgen_chat.commands`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Static
from textual.worker import Worker

from mmgen.errors import MmgenError
from mmgen_chat.answer import Answer
from mmgen_chat.backend import (
    ChatRequest,
    ImageFinished,
    ImageProgress,
    TextDelta,
    TurnFinished,
    TurnRequest,
)
from mmgen_chat.conversation import Conversation, Picture, Segment, Turn, Words
from mmgen_chat.messages import (
    AnswerEvent,
    AnswerOver,
    BackendFailed,
    BackendReady,
    PictureDescribed,
    Trouble,
)
from mmgen_chat.safe_text import one_line
from mmgen_chat.widgets.composer import Composer
from mmgen_chat.widgets.status_bar import StatusBar
from mmgen_chat.widgets.turn_view import TurnView

if TYPE_CHECKING:
    from mmgen_chat.app import ChatApp

__all__ = ["ChatScreen"]


class ChatScreen(Screen[None]):
    """One conversation."""

    DEFAULT_CSS = """
    ChatScreen { layout: vertical; }
    ChatScreen #title { height: 1; padding: 0 1; background: $panel; color: $text; }
    ChatScreen #turns { height: 1fr; padding: 0 0; scrollbar-size-vertical: 1; }
    ChatScreen #prompt { height: auto; border-top: solid $primary; background: $surface; }
    ChatScreen #prompt .line { height: auto; }
    ChatScreen #prompt .mark { width: 2; color: $accent; height: 1; }
    ChatScreen #message { height: auto; max-height: 3; padding: 0 1; color: $text-error; }
    """

    BINDINGS = [
        Binding("escape", "stop", "Stop", show=False),
        Binding("alt+left", "version(-1)", "Earlier version"),
        Binding("alt+right", "version(1)", "Later version"),
    ]

    app: ChatApp

    def __init__(self, conversation: Conversation) -> None:
        super().__init__()
        self.conversation = conversation
        self.attached: list[Picture] = []
        self._answers: dict[str, Answer] = {}
        self._worker: Worker[None] | None = None
        self._last_request: TurnRequest | None = None
        self._speed = _Speed()

    def compose(self) -> ComposeResult:
        yield Static("", id="title")
        yield VerticalScroll(id="turns")
        with Vertical(id="prompt"):
            yield Static("", id="message")
            with Horizontal(classes="line"):
                yield Static("› ", classes="mark")
                yield Composer()
        yield StatusBar()

    async def on_mount(self) -> None:
        self.say("")
        await self.show_branch()
        self.composer.focus()
        self.status.engine = "loading the model…"
        self.open_backend()

    @property
    def composer(self) -> Composer:
        """Where the user types."""
        return self.query_one(Composer)

    @property
    def status(self) -> StatusBar:
        """The last line."""
        return self.query_one(StatusBar)

    @property
    def is_answering(self) -> bool:
        """Whether an answer is under way."""
        return bool(self._answers)

    def say(self, text: str) -> None:
        """Tell the user something in one line above the prompt; nothing takes it away."""
        message = self.query_one("#message", Static)
        message.display = bool(text)
        message.update(Content(one_line(text)))

    # Showing.

    async def show_branch(self) -> None:
        """Show the current branch, keeping what is shown already."""
        turns = self.conversation.path()
        place = self.query_one("#turns", VerticalScroll)
        views = list(place.query(TurnView))
        same = 0
        while same < min(len(views), len(turns)) and views[same].turn.id == turns[same].id:
            views[same].set_version(*self._version(turns[same]))
            same += 1
        await place.remove_children(views[same:])
        await place.mount_all([self._view(turn) for turn in turns[same:]])
        place.anchor()
        title = self.conversation.title or "new conversation"
        self.query_one("#title", Static).update(Content(one_line(title)))

    def view_of(self, turn_id: str) -> TurnView | None:
        """Return the view of a turn, None where it is on another branch."""
        return next((view for view in self.query(TurnView) if view.turn.id == turn_id), None)

    def _view(self, turn: Turn) -> TurnView:
        return TurnView(self.app.surface, turn, version=self._version(turn))

    def _version(self, turn: Turn) -> tuple[int, int]:
        versions = [item.id for item in self.conversation.siblings(turn.id)]
        return versions.index(turn.id) + 1, len(versions)

    # The backend.

    @work(group="open", exclusive=True)
    async def open_backend(self) -> None:
        """Load or reach the model in the background."""
        try:
            self.post_message(BackendReady(await self.app.backend.open()))
        except MmgenError as error:
            self.post_message(BackendFailed(error))

    @on(BackendReady)
    def _backend_ready(self, message: BackendReady) -> None:
        info = message.info
        self.app.info = info
        self.status.engine = f"{one_line(info.model)} · {one_line(info.engine)}"
        self.status.context_length = info.context_length

    @on(BackendFailed)
    def _backend_failed(self, message: BackendFailed) -> None:
        self.status.engine = "no model"
        self.say(str(message.error))

    # Asking.

    async def add_user_turn(self, text: str, pictures: Sequence[Picture] = ()) -> Turn:
        """Add what the user said to the current branch and show it."""
        segments: tuple[Segment, ...] = (*pictures, *((Words(text),) if text else ()))
        turn = Turn(role="user", parent_id=self.conversation.leaf_id, segments=segments)
        self.conversation = self.conversation.with_turn(turn)
        if not self.conversation.title:
            title = one_line(text)[:60] or "pictures"
            self.conversation = replace(self.conversation, title=title)
        await self.show_branch()
        return turn

    async def ask(self, request: TurnRequest) -> Turn:
        """Begin an answer to the last turn."""
        turn = Turn(role="assistant", parent_id=self.conversation.leaf_id, state="running")
        self.conversation = self.conversation.with_turn(turn)
        self._answers[turn.id] = Answer(turn)
        self._last_request = request
        self._speed = _Speed()
        await self.show_branch()
        self.say("")
        self.status.doing = "thinking…"
        self._worker = self._relay(turn.id, request)
        return turn

    async def ask_freely(self) -> None:
        """Let the model answer the branch as it likes."""
        settings = self.app.controls.turn_settings(self.app.info)
        turns = self.conversation.path()
        await self.ask(ChatRequest(turns=turns, settings=settings, may_leave_out=True))

    @work(group="answer")
    async def _relay(self, turn_id: str, request: TurnRequest) -> None:
        try:
            async for event in self.app.backend.events(request):
                self.post_message(AnswerEvent(turn_id, event))
        finally:
            self.post_message(AnswerOver(turn_id))

    @on(AnswerEvent)
    async def _answer_event(self, message: AnswerEvent) -> None:
        answer = self._answers.get(message.turn_id)
        if answer is None:
            return
        event = message.event
        turn = answer.take(event)
        self.conversation = self.conversation.with_turn(turn)
        view = self.view_of(turn.id)
        if view is not None:
            await view.take(event, turn)
        match event:
            case TextDelta():
                self.status.doing = "writing…"
                self.status.rate = self._speed.count(1)
            case ImageProgress(num_done=done) if done is not None:
                self.status.doing = "drawing…"
                self.status.rate = self._speed.reach(event.index, done)
            case ImageFinished():
                pass
            case TurnFinished(usage=usage, seconds=seconds):
                self.status.context_ids = usage.context_ids
                made = (usage.text_ids or 0) + (usage.image_ids or 0)
                if made and seconds > 0:
                    self.status.rate = made / seconds

    @on(AnswerOver)
    async def _answer_over(self, message: AnswerOver) -> None:
        answer = self._answers.pop(message.turn_id, None)
        if answer is None:
            return
        turn = answer.stop()
        self.conversation = self.conversation.with_turn(turn)
        view = self.view_of(turn.id)
        if view is not None:
            await view.settle(turn)
        self.status.doing = ""
        if turn.state == "complete":
            self.describe(turn)

    def action_stop(self) -> None:
        """Stop the answer at once; what is there stays."""
        if self._worker is not None and self.is_answering:
            self._worker.cancel()
        else:
            self.composer.focus()

    # Alternative texts.

    def describe(self, turn: Turn) -> None:
        """Let the model say what new pictures show, for those who do not see them."""
        info = self.app.info
        pictures = [item for item in turn.pictures if item.alt is None and item.is_drawn]
        if info is not None and "look" in info.abilities and pictures:
            self._describe(pictures)

    @work(group="describe")
    async def _describe(self, pictures: Sequence[Picture]) -> None:
        for picture in pictures:
            try:
                alt = await self.app.backend.caption(picture)
            except MmgenError as error:
                self.post_message(Trouble(f"no alternative text: {error}"))
                return
            self.post_message(PictureDescribed(picture, alt))

    @on(PictureDescribed)
    def _picture_described(self, message: PictureDescribed) -> None:
        picture = replace(message.picture, alt=message.alt)
        self.conversation = self.conversation.with_picture(picture)
        for view in self.query(TurnView):
            if any(item.id == picture.id for item in view.turn.pictures):
                view.show_picture(picture)

    @on(Trouble)
    def _trouble(self, message: Trouble) -> None:
        self.say(message.text)

    # What the user does.

    @on(Composer.Sent)
    async def _sent(self, message: Composer.Sent) -> None:
        text = message.text.strip()
        if not text and not self.attached:
            return
        if self.is_answering:
            self.say("an answer is under way; Esc stops it")
            return
        self.composer.remember(text)
        self.composer.put("")
        pictures, self.attached = tuple(self.attached), []
        await self.add_user_turn(text, pictures)
        await self.ask_freely()

    async def action_version(self, step: int) -> None:
        """Go to another version of the turn with the focus, or of the last one that has several."""
        turns = self.conversation.path()
        focused = self.focused
        at = next((turn for turn in turns if isinstance(focused, TurnView) and focused.turn.id == turn.id), None)
        several = [turn for turn in turns if len(self.conversation.siblings(turn.id)) > 1]
        turn = at or (several[-1] if several else None)
        if turn is not None and not self.is_answering:
            self.conversation = self.conversation.beside(turn.id, step)
            await self.show_branch()


class _Speed:
    """Tokens per second of the answer under way."""

    def __init__(self) -> None:
        self._first: float | None = None
        self._count = 0
        self._reached: dict[int, int] = {}

    def count(self, number: int) -> float | None:
        """Take note of more tokens; return the speed once there is one."""
        now = time.monotonic()
        if self._first is None:
            self._first = now
            return None
        self._count += number
        return self._count / max(now - self._first, 1e-6)

    def reach(self, index: int, done: int) -> float | None:
        """Take note of how many codes a picture has."""
        new = done - self._reached.get(index, 0)
        self._reached[index] = done
        return self.count(new)
