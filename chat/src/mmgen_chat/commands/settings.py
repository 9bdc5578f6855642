"""Commands that set things, and those that leave."""

from __future__ import annotations

from collections.abc import Mapping

from mmgen.errors import SettingsError
from mmgen_chat.commands.family import AbstractFamily, Doing
from mmgen_chat.controls import CONTROLS
from mmgen_chat.graphics import GRAPHICS
from mmgen_chat.slash_commands import COMMANDS, Typed

__all__ = ["SettingsCommands"]


class SettingsCommands(AbstractFamily):
    """Commands for settings."""

    def doings(self) -> Mapping[str, Doing]:
        typed_alike = {name: self._control for name in CONTROLS if name in COMMANDS}
        return {
            **typed_alike,
            "guidance": self._guidance,
            "model": self._model,
            "endpoint": self._endpoint,
            "temperature": self._temperature,
            "topk": self._topk,
            "panel": self._panel,
            "theme": self._theme,
            "graphics": self._graphics,
            "help": self._help,
            "quit": self._quit,
        }

    async def _control(self, typed: Typed) -> None:
        if typed.rest:
            self.screen.set_control(typed.name, typed.rest)
        self.screen.say(f"{typed.name} is {self.app.controls.shown(typed.name)}")

    async def _guidance(self, typed: Typed) -> None:
        kind, _, value = typed.rest.partition(" ")
        await self._control(Typed("image_guidance", value.strip()) if kind == "image" else typed)

    async def _temperature(self, typed: Typed) -> None:
        await self._of_two(typed, "temperature")

    async def _topk(self, typed: Typed) -> None:
        await self._of_two(typed, "top_k")

    async def _of_two(self, typed: Typed, what: str) -> None:
        kind, _, value = typed.rest.partition(" ")
        if kind not in ("text", "image"):
            raise SettingsError(f"/{typed.name} takes text or image first: /{typed.name} text 0.7")
        await self._control(Typed(f"{kind}_{what}", value.strip()))

    async def _model(self, typed: Typed) -> None:
        if typed.rest:
            await self.screen.change_backend(typed.rest, self.app.endpoint)
            return
        models = await self.app.backend.models()
        names = ", ".join(model.name for model in models) or "none that are told of"
        now = f"the model is {self.app.info.model}; " if self.app.info else ""
        self.screen.say(f"{now}there are {names}")

    async def _endpoint(self, typed: Typed) -> None:
        if not typed.rest:
            self.screen.say(self.app.endpoint or "the model runs in this process")
            return
        await self.screen.change_backend(None, None if typed.rest == "off" else typed.rest)

    async def _panel(self, typed: Typed) -> None:
        self.screen.action_panel()

    async def _theme(self, typed: Typed) -> None:
        themes = sorted(self.app.available_themes)
        if not typed.rest:
            self.screen.say(f"the theme is {self.app.theme}; there are {', '.join(themes)}")
        elif typed.rest in themes:
            self.app.theme = typed.rest
        else:
            raise SettingsError(f"no theme {typed.rest!r}; there are {', '.join(themes)}")

    async def _graphics(self, typed: Typed) -> None:
        if not typed.rest:
            now = self.app.surface.terminal.graphics
            self.screen.say(f"pictures are shown by {now}; there are {', '.join(GRAPHICS)}")
        elif typed.rest in GRAPHICS:
            self.app.change_graphics(typed.rest)
        else:
            raise SettingsError(f"no {typed.rest!r}; there are {', '.join(GRAPHICS)}")

    async def _help(self, typed: Typed) -> None:
        self.app.action_help()

    async def _quit(self, typed: Typed) -> None:
        await self.app.action_quit()
