"""The application: what the screens share, and the terminal as pictures are put on it."""

from __future__ import annotations

from textual.app import App

from mmgen_chat.backend import AbstractBackend, BackendInfo
from mmgen_chat.controls import Controls
from mmgen_chat.conversation import Conversation
from mmgen_chat.graphics import Terminal
from mmgen_chat.screens.chat_screen import ChatScreen
from mmgen_chat.widgets.picture_view import Surface

__all__ = ["ChatApp"]


class ChatApp(App[None]):
    """A chat in which pictures appear as they are drawn."""

    TITLE = "mmgen"

    def __init__(
        self,
        backend: AbstractBackend,
        *,
        terminal: Terminal,
        controls: Controls,
    ) -> None:
        super().__init__()
        self.backend = backend
        self.controls = controls
        self.info: BackendInfo | None = None
        self.surface = Surface(terminal, self._write_terminal)

    async def on_mount(self) -> None:
        await self.push_screen(ChatScreen(Conversation()))

    async def on_unmount(self) -> None:
        await self.backend.close()

    def post_display_hook(self) -> None:
        self.surface.flush()

    def _write_terminal(self, data: str) -> None:
        # Textual has no public way to write what is neither text nor a style.
        if self._driver is not None and not self.is_headless:
            self._driver.write(data)
            self._driver.flush()
