"""Commands for the answers: again, edited, stopped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from mmgen.errors import SettingsError
from mmgen_chat.backend import ChatRequest, TurnRequest, new_seed
from mmgen_chat.commands.family import AbstractFamily, Doing
from mmgen_chat.slash_commands import Typed

__all__ = ["AnswerCommands"]


class AnswerCommands(AbstractFamily):
    """Commands for answers."""

    def doings(self) -> Mapping[str, Doing]:
        return {
            "again": self._again,
            "retry": self._retry,
            "edit": self._edit,
            "stop": self._stop,
        }

    async def _again(self, typed: Typed) -> None:
        request = self._request()
        seed = self.turn_settings().seed if self.app.controls.seed is None else new_seed()
        await self.screen.ask_again(replace(request, settings=replace(request.settings, seed=seed)))

    async def _retry(self, typed: Typed) -> None:
        await self.screen.ask_again(self._request())

    def _request(self) -> TurnRequest:
        """Return what was asked last, or the free answer to the last turn of the user."""
        if self.screen.last_request is not None:
            return self.screen.last_request
        turns = self.screen.conversation.path()
        while turns and turns[-1].role == "assistant":
            turns = turns[:-1]
        if not turns:
            raise SettingsError("nothing has been said yet")
        return ChatRequest(turns=turns, settings=self.turn_settings(), may_leave_out=True)

    async def _edit(self, typed: Typed) -> None:
        users = [turn for turn in self.screen.conversation.path() if turn.role == "user"]
        if not users:
            raise SettingsError("nothing has been said yet")
        await self.screen.edit(users[-1])

    async def _stop(self, typed: Typed) -> None:
        self.screen.action_stop()
