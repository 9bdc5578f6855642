"""Saving while the conversation goes on: the newest state, as soon as the last save is done.

Saves happen in a thread, one at a time, so a slow disk delays neither typing nor painting, and
what an answer has so far is on disk a moment later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from mmgen.errors import MmgenError
from mmgen_chat.conversation import Conversation
from mmgen_chat.store import Store

__all__ = ["Keeper"]

_PAUSE = 0.25
"""Seconds between two saves of a growing answer."""


class Keeper:
    """Writes conversations to a store, the newest state of each."""

    def __init__(self, store: Store | None, complain: Callable[[MmgenError], None]) -> None:
        """Write to a store, or nowhere; tell `complain` what went wrong, once for each reason."""
        self.store = store
        self._complain = complain
        self._waiting: dict[str, Conversation] = {}
        self._task: asyncio.Task[None] | None = None
        self._said = ""

    def keep(self, conversation: Conversation) -> None:
        """Save a conversation soon; a state that is overtaken before is left out."""
        if self.store is None or not conversation.turns:
            return
        self._waiting[conversation.id] = conversation
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(self.store))

    async def delete(self, conversation_id: str) -> None:
        """Remove a conversation, and save it no more.

        Raises:
            MmgenError: the store does not let go of it.
        """
        self._waiting.pop(conversation_id, None)
        await self.flush()
        if self.store is not None:
            await asyncio.to_thread(self.store.delete, conversation_id)

    async def flush(self) -> None:
        """Wait until all is saved."""
        if self._task is not None:
            await self._task

    async def _run(self, store: Store) -> None:
        while self._waiting:
            conversation = self._waiting.pop(next(iter(self._waiting)))
            try:
                await asyncio.to_thread(store.save, conversation)
            except MmgenError as error:
                if str(error) != self._said:
                    self._said = str(error)
                    self._complain(error)
            if conversation.id in self._waiting:
                await asyncio.sleep(_PAUSE)
