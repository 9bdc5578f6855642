"""Saving an answer while it grows: often enough to lose little, seldom enough not to be felt."""

from __future__ import annotations

import asyncio
import time

from mmgen_chat.conversation import Conversation
from mmgen_chat.store import Store

__all__ = ["Keeper"]


class Keeper:
    """Saves one conversation from an event loop, in a thread, never out of order."""

    def __init__(self, store: Store, *, seconds_between: float = 0.25) -> None:
        self._store = store
        self._seconds_between = seconds_between
        self._last = 0.0
        self._lock = asyncio.Lock()
        self._newest: Conversation | None = None

    async def keep(self, conversation: Conversation, *, is_final: bool = False) -> None:
        """Save a state of the conversation, unless one was saved just now.

        Args:
            is_final: save in any case; to be set when an answer is over.

        Raises:
            StoreError: it cannot be written.
        """
        self._newest = conversation
        if not is_final and time.monotonic() - self._last < self._seconds_between:
            return
        async with self._lock:
            if self._newest is None:
                return
            newest, self._newest = self._newest, None
            await asyncio.to_thread(self._store.save, newest)
            self._last = time.monotonic()
