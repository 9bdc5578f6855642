"""The application: what the screens share, and the terminal as pictures are put on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, TypeAlias

from textual import events, on
from textual.app import App
from textual.binding import Binding, BindingType

from mmgen.errors import MmgenError
from mmgen.plugins import MODELS, installed
from mmgen_chat.afterwards import Afterwards
from mmgen_chat.backend import AbstractBackend, BackendInfo
from mmgen_chat.completing import Candidate
from mmgen_chat.conversation import Conversation
from mmgen_chat.errors import StoreError
from mmgen_chat.export import export
from mmgen_chat.graphics import GRAPHICS, Graphics, Terminal
from mmgen_chat.graphics.probe import cell_size
from mmgen_chat.keeping import Keeper
from mmgen_chat.messages import Trouble
from mmgen_chat.picture_files import carry_out
from mmgen_chat.screens.chat_screen import ChatScreen
from mmgen_chat.screens.gallery_screen import GalleryScreen
from mmgen_chat.screens.help_screen import HelpScreen
from mmgen_chat.screens.library_screen import LibraryScreen
from mmgen_chat.screens.viewer_screen import ViewerScreen
from mmgen_chat.settings import Settings
from mmgen_chat.store import KeptPicture, Store
from mmgen_chat.themes import THEMES
from mmgen_chat.widgets.picture_view import PictureView, Surface

__all__ = ["ACTIONS", "ChatApp", "MakeBackend"]

MakeBackend: TypeAlias = Callable[[str | None, str | None], AbstractBackend]
"""From a model's name or directory and a server's address, both None for the default."""

ACTIONS = (
    "stop", "version_back", "version_forward", "panel", "conversations", "gallery", "new",
    "help", "leave",
)  # fmt: skip
"""What keys can be set for in the settings file."""


class ChatApp(App[None]):
    """A chat in which pictures appear as they are drawn."""

    TITLE = "mmgen"
    ENABLE_COMMAND_PALETTE = True
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f1", "help", "Keys", id="help"),
        Binding("ctrl+q", "quit", "Leave", id="leave", priority=True),
    ]

    def __init__(
        self,
        make_backend: MakeBackend,
        *,
        terminal: Terminal,
        settings: Settings,
        store: Store | None = None,
        conversation: Conversation | None = None,
        folder: Path = Path(),
        said: str = "",
        attached: Sequence[str] = (),
    ) -> None:
        """Prepare the application; the model is loaded once it is on the screen.

        Args:
            store: where conversations are kept; nowhere without one.
            conversation: what to go on with; a new one without.
            folder: where files are looked for.
            said: what is said first.
            attached: paths or addresses of pictures that go with it.
        """
        super().__init__()
        self.settings = settings
        self.controls = settings.controls
        self.endpoint = settings.endpoint
        self.make_backend = make_backend
        self.backend = make_backend(settings.model, settings.endpoint)
        self.info: BackendInfo | None = None
        self.folder = folder
        self.surface = Surface(terminal, self._write_terminal)
        self.keeper = Keeper(store, self._complain)
        self.afterwards = Afterwards(lambda: self.backend)
        self.model_names = tuple(installed(MODELS))
        self._first = conversation or Conversation()
        self._said = said
        self._attached = tuple(attached)
        for theme in THEMES:
            self.register_theme(theme)
        self.theme = settings.theme or THEMES[0].name
        self.set_keymap(settings.keys)

    async def on_mount(self) -> None:
        screen = ChatScreen(self._first)
        await self.push_screen(screen)
        store = self.keeper.store
        if store is not None and store.notice:
            screen.say(store.notice)
        await screen.begin(self._said, self._attached)

    def on_key(self, event: events.Key) -> None:
        """Take what was typed before the prompt had the focus."""
        composer = self.chat.composer
        is_in_front = self.screen is self.chat and self.focused in (None, composer)
        if is_in_front and event.is_printable and event.character is not None:
            composer.insert(event.character)

    async def on_unmount(self) -> None:
        await self.keeper.flush()
        await self.backend.close()

    @property
    def chat(self) -> ChatScreen:
        """The conversation, whatever is above it."""
        return next(screen for screen in self.screen_stack if isinstance(screen, ChatScreen))

    # What the screens ask for.

    async def change_backend(self, model: str | None, endpoint: str | None) -> None:
        """Use another model or server; it is opened by whoever asked.

        Raises:
            MmgenError: there is no such model, or the address is none.
        """
        backend = self.make_backend(model, endpoint)
        old, self.backend = self.backend, backend
        self.endpoint = endpoint
        self.info = None
        await old.close()

    def change_graphics(self, graphics: Graphics) -> None:
        """Show pictures in another way from now on."""
        self.surface.terminal = replace(self.surface.terminal, graphics=graphics)
        self.chat.turns.change_terminal()

    def on_resize(self) -> None:
        """Take note of cells that have another size since the letters have."""
        cell = None if self.is_headless else cell_size()
        if cell is not None and cell != self.surface.terminal.cell:
            self.surface.terminal = replace(self.surface.terminal, cell=cell)
            for view in self.screen.query(PictureView):
                view.change_terminal()

    def choices(self) -> Mapping[str, Sequence[Candidate]]:
        """Return what there is for each kind of a command's argument."""
        tokenizers = self.info.tokenizers if self.info else ()
        name = self.controls.tokenizer
        chosen = next((item for item in tokenizers if name in (None, item.name)), None)
        sizes = chosen.sizes if chosen else ()
        lengths = chosen.lengths if chosen else ()
        return {
            "model": [Candidate(item) for item in self.model_names],
            "tokenizer": [Candidate(item.name) for item in tokenizers],
            "size": [Candidate(f"{width}x{height}") for height, width in sizes],
            "tokens": [Candidate(str(length)) for length in lengths],
            "theme": [Candidate(item) for item in sorted(self.available_themes)],
            "graphics": [Candidate(item) for item in GRAPHICS],
            "kind": [Candidate("text", is_final=False), Candidate("image", is_final=False)],
            "format": [Candidate("md", "Markdown and a folder of PNG"), Candidate("html")],
        }

    def open_library(self, search: str = "") -> None:
        """Let the user choose a conversation."""
        if self.keeper.store is None:
            self.chat.say("conversations are not kept in this chat")
            return
        self.push_screen(LibraryScreen(self.keeper.store, search), self._open_conversation)

    def open_gallery(self) -> None:
        """Show all pictures."""
        if self.keeper.store is None:
            self.chat.say("pictures are not kept in this chat")
            return
        self.push_screen(GalleryScreen(self.surface, self.keeper.store), self._open_kept)

    @on(GalleryScreen.Asked)
    async def _gallery_asked(self, message: GalleryScreen.Asked) -> None:
        gallery, picture = message.gallery, message.kept.picture
        if message.what == "view":

            def afterwards(wish: str | None) -> None:
                if wish is not None:
                    gallery.post_message(GalleryScreen.Asked(gallery, message.kept, wish))

            await self.push_screen(ViewerScreen(self.surface, picture), afterwards)
            return
        try:
            gallery.tell(await carry_out(picture, message.what, self.settings.pictures))
        except MmgenError as error:
            gallery.tell(str(error))

    def export(self, conversation: Conversation, kind: str, target: Path | None) -> Path:
        """Write a conversation to files; return the path of the main one."""
        return export(conversation, kind, target)

    def action_help(self) -> None:
        """Show keys and commands."""
        if not isinstance(self.screen, HelpScreen):
            self.push_screen(HelpScreen())

    async def _open_kept(self, kept: KeptPicture | None) -> None:
        await self._open_conversation(kept.conversation_id if kept else None)

    async def _open_conversation(self, conversation_id: str | None) -> None:
        store = self.keeper.store
        if conversation_id is None or store is None:
            return
        if self.chat.is_answering:
            self.chat.say("an answer is under way; Esc stops it")
            return
        await self.keeper.flush()
        try:
            conversation = store.load(conversation_id)
        except StoreError as error:
            self.chat.say(str(error))
        else:
            await self.chat.show_conversation(conversation)

    # The terminal.

    def post_display_hook(self) -> None:
        self.surface.flush()

    def _write_terminal(self, data: str) -> None:
        # Textual has no public way to write what is neither text nor a style.
        if self._driver is not None and not self.is_headless:
            self._driver.write(data)
            self._driver.flush()

    def _complain(self, error: MmgenError) -> None:
        self.chat.post_message(Trouble(str(error)))
