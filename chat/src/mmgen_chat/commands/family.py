"""What all families of commands share: their screen, and questions to its conversation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, TypeAlias

from mmgen.errors import SettingsError
from mmgen_chat.backend import Ability, BackendInfo, TurnSettings
from mmgen_chat.conversation import Picture
from mmgen_chat.errors import NotSupportedError
from mmgen_chat.slash_commands import Typed

if TYPE_CHECKING:
    from mmgen_chat.screens.chat_screen import ChatScreen

__all__ = ["AbstractFamily", "Doing", "wanted"]

Doing: TypeAlias = Callable[[Typed], Awaitable[None]]
"""Does a command."""


class AbstractFamily(ABC):
    """Commands that belong together."""

    def __init__(self, screen: ChatScreen) -> None:
        self.screen = screen
        self.app = screen.app

    @abstractmethod
    def doings(self) -> Mapping[str, Doing]:
        """Return what is done for each name."""

    def last_picture(self) -> Picture:
        """Return the last picture of the branch."""
        for turn in reversed(self.screen.conversation.path()):
            if turn.pictures:
                return turn.pictures[-1]
        raise SettingsError("there is no picture yet; draw or attach one first")

    def last_drawn(self) -> Picture:
        """Return the last picture that was drawn on the branch."""
        for turn in reversed(self.screen.conversation.path()):
            for picture in reversed(turn.pictures):
                if picture.is_drawn:
                    return picture
        raise SettingsError("there is no drawn picture yet; draw one first")

    def last_prompt(self) -> str:
        """Return what the last drawn picture was asked to be."""
        drawing = self.last_drawn().drawing
        assert drawing is not None, "a drawn picture knows what was asked for"
        return drawing.prompt

    def turn_settings(self) -> TurnSettings:
        """Return the settings of the next answer, checked against the model where it is known."""
        info = self.app.info
        if info is not None:
            self.app.controls.check(info)
        return self.app.controls.turn_settings(info)

    def needed(self, ability: Ability, what: str) -> BackendInfo:
        """Return what the backend is, which has an ability."""
        info = self.app.info
        if info is None:
            raise SettingsError("the model is not loaded yet; wait a moment")
        if ability not in info.abilities:
            raise NotSupportedError(f"{info.model} cannot {what}")
        return info


def wanted(typed: Typed, what: str) -> str:
    """Return what follows a command that needs something."""
    if not typed.rest:
        raise SettingsError(f"/{typed.name} needs {what}")
    return typed.rest
