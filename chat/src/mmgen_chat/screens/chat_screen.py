"""The conversation: turns above, the prompt below, and what the user does with both.

What a command does is in `mmgen_chat.commands`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.widgets import Static

from mmgen.errors import MmgenError, SettingsError
from mmgen_chat.commands import Commander
from mmgen_chat.conversation import Conversation, Picture, Turn
from mmgen_chat.picture_files import carry_out
from mmgen_chat.screens.answering_screen import AnsweringScreen
from mmgen_chat.screens.viewer_screen import ViewerScreen
from mmgen_chat.widgets.composer import Composer
from mmgen_chat.widgets.control_panel import ControlPanel
from mmgen_chat.widgets.greeting import Greeting
from mmgen_chat.widgets.picture_block import PictureBlock
from mmgen_chat.widgets.prompt_area import PromptArea
from mmgen_chat.widgets.status_bar import StatusBar
from mmgen_chat.widgets.turn_list import TurnList
from mmgen_chat.widgets.turn_view import TurnView

__all__ = ["ChatScreen"]


class ChatScreen(AnsweringScreen):
    """One conversation."""

    DEFAULT_CSS = """
    ChatScreen { layout: vertical; }
    ChatScreen #body { height: 1fr; }
    ChatScreen #title { height: 1; padding: 0 1; background: $panel; color: $text; }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "stop", "Stop", id="stop"),
        Binding("alt+left", "version(-1)", "Earlier version", id="version_back"),
        Binding("alt+right", "version(1)", "Later version", id="version_forward"),
        Binding("f2", "panel", "Settings", id="panel"),
        Binding("f3", "library", "Conversations", id="conversations"),
        Binding("f4", "gallery", "Gallery", id="gallery"),
        Binding("ctrl+n", "new", "New conversation", id="new"),
        Binding("pageup", "page(-1)", "Scroll up", show=False),
        Binding("pagedown", "page(1)", "Scroll down", show=False),
    ]

    def compose(self) -> ComposeResult:
        yield Static("", id="title")
        with Horizontal(id="body"):
            yield TurnList(self.app.surface)
            yield ControlPanel()
        yield PromptArea(
            self.app.surface,
            self.app.choices,
            folder=self.app.folder,
            allowed_hosts=self.app.settings.allowed_hosts,
        )
        yield StatusBar()

    async def on_mount(self) -> None:
        self._commander = Commander(self)
        await self.show_branch()
        self.composer.focus()
        self.open_backend()

    async def begin(self, said: str, attached: Sequence[str] = ()) -> None:
        """Attach and say what was given on the command line."""
        for word in attached:
            await self.prompt.try_to_attach(word)
        if said:
            self.composer.put(said)
            self.composer.send()

    def action_stop(self) -> None:
        """Stop the answer at once; what is there stays."""
        if self.is_answering:
            self.workers.cancel_group(self, "answer")
        elif self.editing is not None:
            self.editing = None
            self.composer.put("")
            self.say("")
        self.composer.focus()

    # What the user does.

    @on(Composer.Sent)
    async def _sent(self, message: Composer.Sent) -> None:
        text = message.text.strip()
        if text.startswith("/"):
            self.composer.remember(text)
            await self._commander.run(text)
            return
        if not text and not self.prompt.attached:
            return
        if self.is_answering:
            self.composer.give_back(message.text)
            self.say("an answer is under way; Esc stops it")
            return
        try:
            said = await self.prompt.attach_named(text)
        except MmgenError as error:
            self.composer.give_back(message.text)
            self.say(str(error))
            return
        self.composer.remember(text)
        await self.add_user_turn(said, await self.prompt.take_attached())
        await self.ask_freely()

    async def on_paste(self, event: events.Paste) -> None:
        """Take what is dropped on the screen, wherever the focus is."""
        await self.prompt.paste(event.text)
        self.composer.focus()

    @on(Composer.Paged)
    def _paged(self, message: Composer.Paged) -> None:
        self.action_page(message.step)

    @on(Composer.HelpWanted)
    def _help_wanted(self) -> None:
        self.app.action_help()

    @on(Composer.Left)
    def _up_from_prompt(self) -> None:
        for greeting in self.turns.query(Greeting):
            greeting.focus_list()

    @on(Greeting.Chosen)
    def _try(self, message: Greeting.Chosen) -> None:
        self.composer.focus()
        self.post_message(Composer.Sent(message.text))

    @on(ControlPanel.Changed)
    def _control_changed(self, message: ControlPanel.Changed) -> None:
        try:
            self.set_control(message.name, message.text)
        except SettingsError as error:
            self.panel.refuse(message.name)
            self.say(str(error))

    def set_control(self, name: str, text: str) -> None:
        """Set how answers are made.

        Raises:
            SettingsError: the value lies outside its domain, or the model does not have it.
        """
        controls = self.app.controls.changed(name, text)
        if self.app.info is not None:
            controls.check(self.app.info)
        self.app.controls = controls
        self.panel.show(controls, self.app.info)

    @on(PictureBlock.Asked)
    async def _picture_asked(self, message: PictureBlock.Asked) -> None:
        picture, what = message.picture, message.what
        try:
            if what == "view":
                await self.look_closer(picture)
            elif what not in ("describe", "refine"):
                self.say(await carry_out(picture, what, self.app.settings.pictures))
            elif self.is_answering:
                self.say("an answer is under way; Esc stops it")
            elif what == "describe":
                await self._commander.pictures.describe(picture)
            else:
                await self._commander.pictures.refine(picture)
        except MmgenError as error:
            self.say(str(error))

    async def look_closer(self, picture: Picture) -> None:
        """Show a picture on the whole screen."""

        def afterwards(wish: str | None) -> None:
            if wish is not None:
                self.post_message(PictureBlock.Asked(picture, wish))

        await self.app.push_screen(ViewerScreen(self.app.surface, picture), afterwards)

    @on(TurnView.Asked)
    async def _turn_asked(self, message: TurnView.Asked) -> None:
        if self.is_answering:
            self.say("an answer is under way; Esc stops it")
        elif message.what == "edit" and message.turn.role == "user":
            await self.edit(message.turn)
        elif message.what == "again":
            await self._commander.run("/again")

    async def edit(self, turn: Turn) -> None:
        """Change what was said; sending it begins another branch beside the old one."""
        self.editing = turn
        self.composer.put(turn.text)
        await self.prompt.put_back(turn.pictures)
        self.say("editing: Enter sends it as another version, Esc leaves all as it was")
        self.composer.focus()

    async def action_version(self, step: int) -> None:
        """Go to another version of the turn with the focus, or of the last one that has several."""
        if self.is_answering:
            return
        turns = self.conversation.path()
        several = [turn for turn in turns if len(self.conversation.siblings(turn.id)) > 1]
        focused = [turn for turn in turns if self._has_focus(turn)]
        for turn in (focused or several)[-1:]:
            self.conversation = self.conversation.beside(turn.id, step)
            await self.show_branch()
            self.keep()

    def _has_focus(self, turn: Turn) -> bool:
        view = self.turns.view_of(turn.id)
        return view is not None and view.has_focus_within

    def action_panel(self) -> None:
        """Show or hide the settings."""
        panel = self.panel
        panel.display = not panel.display
        panel.show(self.app.controls, self.app.info)
        if panel.display:
            panel.focus_first()
        else:
            self.composer.focus()

    async def action_new(self) -> None:
        """Begin a new conversation."""
        if not self.is_answering:
            await self.show_conversation(Conversation())

    def action_page(self, step: int) -> None:
        """Scroll the conversation by a page."""
        if step < 0:
            self.turns.release_anchor()
            self.turns.scroll_page_up()
        else:
            self.turns.scroll_page_down()

    def action_library(self, search: str = "") -> None:
        """Choose another conversation."""
        if self.is_answering:
            self.say("an answer is under way; Esc stops it")
        else:
            self.app.open_library(search)

    def action_gallery(self) -> None:
        """See all pictures."""
        self.app.open_gallery()
