"""The lower part of the conversation: a line for messages, completions, attachments, the prompt."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from textual import on, work
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widgets import Static, TextArea

from mmgen.errors import MmgenError
from mmgen_chat.attachments import (
    Attached,
    attach,
    attach_clipboard,
    dropped_paths,
    named_files,
)
from mmgen_chat.completing import Candidate, Hunt, complete, find_pictures, hunt_for
from mmgen_chat.conversation import Picture
from mmgen_chat.errors import AttachmentError
from mmgen_chat.messages import PicturesFound
from mmgen_chat.safe_text import one_line, printable
from mmgen_chat.slash_commands import COMMANDS
from mmgen_chat.widgets.attachment_tray import AttachmentTray, Thumbnail
from mmgen_chat.widgets.completion_list import CompletionList
from mmgen_chat.widgets.composer import Composer
from mmgen_chat.widgets.picture_view import Surface

__all__ = ["PromptArea"]

MAX_ATTACHED = 16

Choices = Callable[[], Mapping[str, Sequence[Candidate]]]
"""Gives what there is for each kind of argument, at the moment."""


class PromptArea(Vertical):
    """Where the user says things."""

    DEFAULT_CSS = """
    PromptArea { height: auto; border-top: solid $primary; background: $surface; }
    PromptArea .line { height: auto; }
    PromptArea .mark { width: 2; color: $accent; height: 1; }
    PromptArea #message { height: auto; max-height: 3; padding: 0 1; color: $text-warning; }
    """

    def __init__(
        self,
        surface: Surface,
        choices: Choices,
        *,
        folder: Path,
        allowed_hosts: frozenset[str] = frozenset(),
    ) -> None:
        """Complete arguments from choices, and files after an `@` from below a folder.

        Args:
            allowed_hosts: where pictures may be fetched from by address.
        """
        super().__init__()
        self._choices = choices
        self._folder = folder
        self._allowed_hosts = allowed_hosts
        self.attached: tuple[Picture, ...] = ()
        self._files: Sequence[str] | None = None
        self._hunt: Hunt | None = None
        self.tray = AttachmentTray(surface)
        self.composer = Composer()
        self._list = CompletionList()
        self._message = Static("", id="message")

    def compose(self) -> ComposeResult:
        yield self._message
        yield self.tray
        yield self._list
        with Horizontal(classes="line"):
            yield Static("› ", classes="mark")
            yield self.composer

    def on_mount(self) -> None:
        self.say("")

    def say(self, text: str) -> None:
        """Tell the user something in one line; nothing takes it away."""
        self._message.display = bool(text)
        self._message.update(Content(one_line(text)))

    # Attachments.

    async def attach(self, word: str) -> None:
        """Attach what a path or an address names.

        Raises:
            MmgenError: it gives no picture.
        """
        await self._add([await attach(word, allowed_hosts=self._allowed_hosts)])

    async def attach_named(self, text: str) -> str:
        """Attach the files that a text names by `@FILE`; return what else it says.

        Raises:
            MmgenError: one of them gives no picture; then none is attached.
        """
        said, paths = await asyncio.to_thread(named_files, text, self._folder)
        if paths:
            await self._add([await attach(str(path)) for path in paths])
        return said

    async def attach_from_clipboard(self) -> None:
        """Attach the pictures in the clipboard.

        Raises:
            MmgenError: there are none.
        """
        await self._add(await asyncio.to_thread(attach_clipboard))

    async def put_back(self, pictures: Sequence[Picture]) -> None:
        """Attach pictures that were attached before."""
        self.attached = tuple(pictures)
        await self.tray.show(self.attached)

    async def detach(self, *pictures: Picture) -> None:
        """Take pictures away again."""
        gone = {picture.id for picture in pictures}
        await self.put_back([item for item in self.attached if item.id not in gone])

    async def take_attached(self) -> tuple[Picture, ...]:
        """Return what is attached, to be sent; nothing is attached then."""
        taken = self.attached
        await self.put_back(())
        return taken

    async def _add(self, attached: Sequence[Attached]) -> None:
        if len(self.attached) + len(attached) > MAX_ATTACHED:
            raise AttachmentError(f"at most {MAX_ATTACHED} pictures go with one turn")
        self.say("; ".join(item.notice for item in attached if item.notice))
        await self.put_back([*self.attached, *(item.picture for item in attached)])

    async def try_to_attach(self, word: str) -> None:
        """Attach what a path or an address names, or say why not."""
        try:
            await self.attach(word)
        except MmgenError as error:
            self.say(str(error))

    @on(Thumbnail.Removed)
    async def _removed(self, message: Thumbnail.Removed) -> None:
        message.stop()
        await self.detach(message.picture)
        self.composer.focus()

    @on(Composer.Pasted)
    async def _pasted(self, message: Composer.Pasted) -> None:
        message.stop()
        await self.paste(message.text)

    async def paste(self, text: str) -> None:
        """Attach the files that a text names, or put it into the prompt."""
        paths = await asyncio.to_thread(dropped_paths, text)
        if not paths:
            self.composer.insert(printable(text))
        for path in paths:
            await self.try_to_attach(str(path))

    # Completion.

    @on(TextArea.Changed)
    def _changed(self, event: TextArea.Changed) -> None:
        event.stop()
        self._look()

    @on(TextArea.SelectionChanged)
    def _moved(self, event: TextArea.SelectionChanged) -> None:
        event.stop()
        self._look()

    @on(Composer.Hunted)
    def _pressed(self, message: Composer.Hunted) -> None:
        message.stop()
        # Keys may come faster than the list follows them.
        self._look()
        if self._hunt is not None and self._list.candidates:
            self._list.press(message.key)
            if message.key == "escape":
                self.composer.is_completing = False
        elif message.key == "enter":
            self._send()

    def _send(self) -> None:
        # A message that this widget made would not bubble from the prompt through this widget.
        self.post_message(Composer.Sent(self.composer.take()))

    @on(CompletionList.Taken)
    async def _taken(self, message: CompletionList.Taken) -> None:
        message.stop()
        hunt = self._hunt
        if hunt is None:
            return
        candidate = message.candidate
        if hunt.kind == "file" and candidate.is_final:
            # The picture itself is shown in place of its name.
            self.composer.replace_before_cursor(len(hunt.word) + 1, "")
            self._offer(None, ())
            await self.try_to_attach(str(self._folder / Path(candidate.text).expanduser()))
            return
        needs_more = hunt.kind == "command" and bool(COMMANDS[candidate.text].form)
        is_done = candidate.is_final and not needs_more
        blank = " " if candidate.is_final and hunt.kind == "command" and needs_more else ""
        self.composer.replace_before_cursor(len(hunt.word), candidate.text + blank)
        if message.is_sent and is_done:
            self._offer(None, ())
            self._send()
        elif is_done:
            self._offer(None, ())
        else:
            self._look()

    @on(PicturesFound)
    def _found(self, message: PicturesFound) -> None:
        self._files = message.paths
        self._look()

    def _look(self) -> None:
        """Offer ways to complete what stands before the cursor."""
        hunt = hunt_for(self.composer.before_cursor)
        if hunt is None:
            self._offer(None, ())
            if self._files is not None and "@" not in self.composer.text:
                # Files may come and go; the next `@` looks anew.
                self._files = None
            return
        if hunt.kind == "file" and self._files is None:
            self._files = ()
            self._find_files()
        found = complete(hunt, self._choices(), self._files or ())
        self._offer(hunt, found)

    def _offer(self, hunt: Hunt | None, candidates: Sequence[Candidate]) -> None:
        self._hunt = hunt
        if list(candidates) != list(self._list.candidates):
            self._list.offer(candidates)
        self.composer.is_completing = bool(candidates)

    @work(thread=True, exclusive=True)
    def _find_files(self) -> None:
        self.post_message(PicturesFound(find_pictures(self._folder)))
