"""Screens under test: an application with a scripted backend, driven by its keys."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from scripted import ScriptedBackend
from textual.pilot import Pilot

from mmgen_chat.app import ChatApp
from mmgen_chat.conversation import Conversation
from mmgen_chat.graphics import Terminal, plain_terminal
from mmgen_chat.screens.chat_screen import ChatScreen
from mmgen_chat.settings import Settings
from mmgen_chat.store import Store

__all__ = ["Stage", "run_async", "staged"]


def run_async(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run one coroutine to its end, as a test does."""
    asyncio.run(test())


class Stage:
    """A running application and what a test wants to know of it."""

    def __init__(self, app: ChatApp, pilot: Pilot[None], backend: ScriptedBackend) -> None:
        self.app = app
        self.pilot = pilot
        self.backend = backend

    @property
    def chat(self) -> ChatScreen:
        """The conversation's screen."""
        return self.app.chat

    async def type(self, text: str) -> None:
        """Put a text into the prompt as if it were typed."""
        self.chat.composer.put(text)
        await self.pilot.pause()

    async def say(self, text: str) -> None:
        """Type a text, send it, and wait until the answer is there."""
        await self.type(text)
        self.chat.composer.send()
        await self.settle()

    async def settle(self) -> None:
        """Wait until nothing is under way."""
        await self.until(lambda: not self.chat.is_answering and not self._is_working())

    async def until(self, is_true: Callable[[], bool]) -> None:
        """Wait until something is so; fail when it does not come to be."""
        for _ in range(400):
            await self.pilot.pause()
            if is_true():
                await self.pilot.pause()
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"this did not happen; on the screen is\n{self.text()}")

    def text(self) -> str:
        """Return what the screen shows, in letters."""
        strips = self.app.screen._compositor.render_strips()
        return "\n".join(strip.text.rstrip() for strip in strips)

    def _is_working(self) -> bool:
        return any(not worker.is_finished for worker in self.chat.workers)


@asynccontextmanager
async def staged(
    backend: ScriptedBackend | None = None,
    *,
    size: tuple[int, int] = (80, 24),
    terminal: Terminal | None = None,
    settings: Settings | None = None,
    store: Store | None = None,
    conversation: Conversation | None = None,
    folder: Path = Path(),
) -> AsyncGenerator[Stage]:
    """Give a running application."""
    backend = backend or ScriptedBackend()
    others: list[ScriptedBackend] = []

    def make(model: str | None, endpoint: str | None) -> ScriptedBackend:
        if not others and model is None:
            others.append(backend)
            return backend
        others.append(ScriptedBackend(name=model or endpoint or "scripted"))
        return others[-1]

    app = ChatApp(
        make,
        terminal=terminal or plain_terminal(),
        settings=settings or Settings(),
        store=store,
        conversation=conversation,
        folder=folder,
    )
    async with app.run_test(size=size) as pilot:
        await pilot.pause()
        yield Stage(app, pilot, backend)
