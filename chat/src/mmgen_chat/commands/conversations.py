"""Commands for whole conversations: begin, find, rename, delete, export."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from mmgen.errors import SettingsError
from mmgen_chat.commands.family import AbstractFamily, Doing, wanted
from mmgen_chat.conversation import Conversation
from mmgen_chat.safe_text import one_line
from mmgen_chat.slash_commands import Typed

__all__ = ["ConversationCommands"]


class ConversationCommands(AbstractFamily):
    """Commands for conversations."""

    def doings(self) -> Mapping[str, Doing]:
        return {
            "new": self._new,
            "list": self._list,
            "rename": self._rename,
            "delete": self._delete,
            "export": self._export,
        }

    async def _new(self, typed: Typed) -> None:
        await self.screen.show_conversation(Conversation())

    async def _list(self, typed: Typed) -> None:
        self.screen.action_library(typed.rest)

    async def _rename(self, typed: Typed) -> None:
        title = one_line(wanted(typed, "a title"), max_length=200)
        self.screen.conversation = replace(self.screen.conversation, title=title)
        await self.screen.show_branch()
        self.screen.keep()

    async def _delete(self, typed: Typed) -> None:
        conversation = self.screen.conversation
        if typed.rest != "yes":
            raise SettingsError(
                f"this deletes “{one_line(conversation.title, max_length=40)}” and its "
                f"{len(conversation.pictures)} pictures for good; /delete yes does it"
            )
        await self.app.keeper.delete(conversation.id)
        await self.screen.show_conversation(Conversation())
        self.screen.say("deleted")

    async def _export(self, typed: Typed) -> None:
        kind, _, place = typed.rest.partition(" ")
        if kind not in ("md", "html"):
            raise SettingsError("/export takes md or html, and a path if you like")
        if not self.screen.conversation.turns:
            raise SettingsError("there is nothing to export yet")
        target = Path(place.strip()).expanduser() if place.strip() else None
        self.screen.say(f"exported to {self.app.export(self.screen.conversation, kind, target)}")
