"""From a typed line to the function that does it.

A command that cannot be done says so in one line, and what was typed is given back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mmgen.errors import MmgenError, SettingsError
from mmgen_chat.commands.answers import AnswerCommands
from mmgen_chat.commands.conversations import ConversationCommands
from mmgen_chat.commands.family import Doing
from mmgen_chat.commands.pictures import PictureCommands
from mmgen_chat.commands.settings import SettingsCommands
from mmgen_chat.controls import CONTROLS
from mmgen_chat.slash_commands import COMMANDS, read_command

if TYPE_CHECKING:
    from mmgen_chat.screens.chat_screen import ChatScreen

__all__ = ["Commander"]

_WHILE_ANSWERING = frozenset(
    ["stop", "panel", "help", "quit", "theme", "graphics", "save", "copy", "open", "detach",
     "attach", "paste", "gallery", *CONTROLS, "temperature", "topk"]
)  # fmt: skip


class Commander:
    """Does what is typed after a slash, on one screen."""

    def __init__(self, screen: ChatScreen) -> None:
        self._screen = screen
        self.pictures = PictureCommands(screen)
        self.answers = AnswerCommands(screen)
        self.settings = SettingsCommands(screen)
        self.conversations = ConversationCommands(screen)
        self._doings: Mapping[str, Doing] = {
            **self.pictures.doings(),
            **self.answers.doings(),
            **self.settings.doings(),
            **self.conversations.doings(),
        }
        assert self._doings.keys() == COMMANDS.keys(), "every command is done somewhere"

    async def run(self, line: str) -> None:
        """Do one command; say in one line why not, where it cannot be done."""
        try:
            typed = read_command(line)
            if self._screen.is_answering and typed.name not in _WHILE_ANSWERING:
                raise SettingsError(f"/{typed.name} has to wait for the answer; Esc stops it")
            self._screen.say("")
            await self._doings[typed.name](typed)
        except MmgenError as error:
            self._screen.say(str(error))
            self._screen.composer.give_back(line)
