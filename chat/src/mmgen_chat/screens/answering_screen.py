"""The part of the conversation's screen that asks the model and takes in what it answers.

Workers ask the backend and post what comes; the handlers here take it into the conversation, show
it and keep it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from textual import on, work
from textual.content import Content
from textual.css.query import NoMatches
from textual.screen import Screen
from textual.widgets import Static

from mmgen.errors import MmgenError
from mmgen_chat.answer import Answer
from mmgen_chat.backend import (
    AbstractBackend,
    ChatRequest,
    ImageProgress,
    PictureEncoded,
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
    Judged,
    PictureDescribed,
    Trouble,
)
from mmgen_chat.safe_text import one_line
from mmgen_chat.speed import Speed
from mmgen_chat.widgets.composer import Composer
from mmgen_chat.widgets.control_panel import ControlPanel
from mmgen_chat.widgets.greeting import Greeting
from mmgen_chat.widgets.prompt_area import PromptArea
from mmgen_chat.widgets.status_bar import StatusBar
from mmgen_chat.widgets.turn_list import TurnList

if TYPE_CHECKING:
    from mmgen_chat.app import ChatApp

__all__ = ["AnsweringScreen"]


class AnsweringScreen(Screen[None]):
    """Holds the conversation; abstract: `ChatScreen` adds what the user does with it."""

    app: ChatApp

    def __init__(self, conversation: Conversation) -> None:
        super().__init__()
        self.conversation = conversation
        self.last_request: TurnRequest | None = None
        self.editing: Turn | None = None
        self._answers: dict[str, Answer] = {}
        self._judged: dict[str, str] = {}
        self._speed = Speed()

    # The parts of the screen.

    @property
    def composer(self) -> Composer:
        """Where the user types."""
        return self.query_one(Composer)

    @property
    def status(self) -> StatusBar:
        """The last line."""
        return self.query_one(StatusBar)

    @property
    def turns(self) -> TurnList:
        """What was said and drawn."""
        return self.query_one(TurnList)

    @property
    def panel(self) -> ControlPanel:
        """The settings beside the conversation."""
        return self.query_one(ControlPanel)

    @property
    def is_answering(self) -> bool:
        """Whether an answer is under way."""
        return bool(self._answers)

    @property
    def prompt(self) -> PromptArea:
        """The lower part: messages, completions, attachments, the prompt."""
        return self.query_one(PromptArea)

    def say(self, text: str) -> None:
        """Tell the user something in one line above the prompt; nothing takes it away."""
        self.prompt.say(text)

    def keep(self) -> None:
        """Save the conversation as it is now."""
        self.app.keeper.keep(self.conversation)

    async def show_branch(self, contest: Sequence[str] = ()) -> None:
        """Show the current branch.

        Args:
            contest: versions of the last turn that are shown side by side.
        """
        await self.turns.show(self.conversation, contest)
        title = self.conversation.title or "new conversation"
        self.query_one("#title", Static).update(Content(one_line(title)))
        try:
            greeting = self.turns.query_one(Greeting)
        except NoMatches:
            greeting = None
        if greeting is None and not self.conversation.turns:
            await self.turns.mount(Greeting())
        elif greeting is not None and self.conversation.turns:
            await greeting.remove()

    async def show_conversation(self, conversation: Conversation) -> None:
        """Leave this conversation for another."""
        self.conversation = conversation
        self.last_request = None
        self.editing = None
        await self.show_branch()
        self.status.context_ids = None
        self.say("")
        self.composer.focus()

    # The backend.

    @work(group="open", exclusive=True)
    async def open_backend(self) -> None:
        """Load or reach the model in the background."""
        self.status.engine = "loading the model…"
        try:
            self.post_message(BackendReady(await self.app.backend.open()))
        except MmgenError as error:
            self.post_message(BackendFailed(error))

    async def change_backend(self, model: str | None, endpoint: str | None) -> None:
        """Use another model or server from now on."""
        await self.app.change_backend(model, endpoint)
        self.open_backend()

    @on(BackendReady)
    def _backend_ready(self, message: BackendReady) -> None:
        info = message.info
        self.app.info = info
        self.status.engine = f"{one_line(info.model)} · {one_line(info.engine)}"
        self.status.context_length = info.context_length
        self.panel.show(self.app.controls, info)

    @on(BackendFailed)
    def _backend_failed(self, message: BackendFailed) -> None:
        self.app.info = None
        self.status.engine = "no model"
        self.say(f"{message.error} — /model and /endpoint choose another")

    # Asking.

    async def add_user_turn(self, text: str, pictures: Sequence[Picture] = ()) -> Turn:
        """Add what the user said to the current branch and show it."""
        editing, self.editing = self.editing, None
        if editing is not None:
            self.conversation = self.conversation.with_leaf(editing.parent_id)
        segments: tuple[Segment, ...] = (*pictures, *((Words(text),) if text else ()))
        turn = Turn(role="user", parent_id=self.conversation.leaf_id, segments=segments)
        self.conversation = self.conversation.with_turn(turn)
        if not self.conversation.title:
            title = one_line(text, max_length=60) or "pictures"
            self.conversation = replace(self.conversation, title=title)
        self.keep()
        return turn

    async def ask(
        self, *requests: TurnRequest, backends: Sequence[AbstractBackend] = ()
    ) -> list[Turn]:
        """Begin answers to the last turn, several of them as versions side by side.

        Args:
            backends: one for each request; the chat's own if there are none.
        """
        parent_id = self.conversation.leaf_id
        turns = [Turn(role="assistant", parent_id=parent_id, state="running") for _ in requests]
        for turn in turns:
            self.conversation = self.conversation.with_turn(turn)
            self._answers[turn.id] = Answer(turn)
        self.last_request = requests[-1] if len(requests) == 1 else None
        self._speed = Speed()
        await self.show_branch([turn.id for turn in turns] if len(turns) > 1 else ())
        self.say("")
        self.status.doing = "thinking…"
        for index, (turn, request) in enumerate(zip(turns, requests, strict=True)):
            backend = backends[index] if backends else self.app.backend
            self._relay(turn.id, backend, request)
        return turns

    async def ask_freely(self) -> None:
        """Let the model answer the branch as it likes."""
        settings = self.app.controls.turn_settings(self.app.info)
        turns = self.conversation.path()
        may_leave_out = self.app.settings.leave_out_old_turns
        await self.ask(ChatRequest(turns=turns, settings=settings, may_leave_out=may_leave_out))

    async def ask_again(self, request: TurnRequest) -> None:
        """Answer the last turn of the user once more, as another version."""
        path = self.conversation.path()
        users = [turn for turn in path if turn.role == "user"]
        self.conversation = self.conversation.with_leaf(users[-1].id)
        await self.ask(request)

    def judge_when_done(self, turns: Sequence[Turn], prompt: str) -> None:
        """Let the model choose among versions once all of them are there."""
        self._judged = {turn.id: prompt for turn in turns}

    @work(group="answer")
    async def _relay(self, turn_id: str, backend: AbstractBackend, request: TurnRequest) -> None:
        try:
            async for event in backend.events(request):
                self.post_message(AnswerEvent(turn_id, event))
        finally:
            self.post_message(AnswerOver(turn_id))
            if backend is not self.app.backend:
                await backend.close()

    @on(AnswerEvent)
    async def _answer_event(self, message: AnswerEvent) -> None:
        answer = self._answers.get(message.turn_id)
        if answer is None:
            return
        event = message.event
        turn = answer.take(event)
        self.conversation = self.conversation.with_turn(turn)
        view = self.turns.view_of(turn.id)
        if view is not None:
            await view.take(event, turn)
        match event:
            case TextDelta():
                self.status.doing = "writing…"
                self.status.rate = self._speed.count(1)
            case ImageProgress(num_done=done) if done is not None:
                self.status.doing = "drawing…"
                self.status.rate = self._speed.reach((turn.id, event.index), done)
            case PictureEncoded(picture=picture):
                self._update_picture(picture)
            case TurnFinished(usage=usage):
                self.status.context_ids = usage.context_ids
        self.keep()

    @on(AnswerOver)
    async def _answer_over(self, message: AnswerOver) -> None:
        answer = self._answers.pop(message.turn_id, None)
        if answer is None:
            return
        turn = answer.stop()
        self.conversation = self.conversation.with_turn(turn)
        self.keep()
        view = self.turns.view_of(turn.id)
        if view is not None:
            await view.settle(turn)
        if not self.is_answering:
            self.status.doing = ""
            await self._all_answered()

    async def _all_answered(self) -> None:
        prompts, self._judged = self._judged, {}
        turns = [self.conversation.turns[turn_id] for turn_id in prompts]
        drawn = [turn for turn in turns if turn.state == "complete" and turn.pictures]
        info = self.app.info
        if info is None:
            return
        if len(drawn) > 1:
            self.status.doing = "choosing…"
            self.app.afterwards.judge(self, info, drawn, next(iter(prompts.values())))
        else:
            self.app.afterwards.describe(self, info, self.conversation.pictures)

    # What comes after answers.

    @on(Judged)
    async def _judgement(self, message: Judged) -> None:
        self.status.doing = ""
        ranked = sorted(message.scores, key=lambda item: item[1])
        best, score = ranked[-1]
        if best in self.conversation.turns:
            self.conversation = self.conversation.with_leaf(best)
            await self.show_branch()
            self.keep()
            others = ", ".join(f"{other:.2f}" for _, other in reversed(ranked[:-1]))
            view = self.turns.view_of(best)
            if view is not None:
                view.note(
                    f"best of {len(ranked)} by {message.measure}: {score:.2f}, the others "
                    f"{others} — Alt+← shows them"
                )
        if self.app.info is not None:
            self.app.afterwards.describe(self, self.app.info, self.conversation.pictures)

    @on(PictureDescribed)
    def _picture_described(self, message: PictureDescribed) -> None:
        known = {item.id: item for item in self.conversation.pictures}
        if message.picture.id in known:
            self._update_picture(replace(known[message.picture.id], alt=message.alt))

    def _update_picture(self, picture: Picture) -> None:
        if any(item.id == picture.id for item in self.conversation.pictures):
            self.conversation = self.conversation.with_picture(picture)
            self.turns.show_picture(picture)
            self.keep()

    @on(Trouble)
    def _trouble(self, message: Trouble) -> None:
        self.status.doing = ""
        self.say(message.text)
