"""Commands that draw, look, choose, and take pictures in and out of the chat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from mmgen.errors import SettingsError
from mmgen_chat.attachments import words_in
from mmgen_chat.backend import AbstractBackend, CaptionRequest, DrawRequest, new_seed
from mmgen_chat.commands.family import AbstractFamily, Doing, wanted
from mmgen_chat.conversation import Picture
from mmgen_chat.picture_files import carry_out
from mmgen_chat.slash_commands import Typed

__all__ = ["PictureCommands"]

MAX_CANDIDATES = 16


class PictureCommands(AbstractFamily):
    """Commands for pictures."""

    def doings(self) -> Mapping[str, Doing]:
        return {
            "draw": self._draw,
            "describe": self._describe,
            "best": self._best,
            "compare": self._compare,
            "refine": self._refine,
            "attach": self._attach,
            "paste": self._paste,
            "detach": self._detach,
            "save": self._save,
            "copy": self._copy,
            "open": self._open,
            "gallery": self._gallery,
        }

    async def _draw(self, typed: Typed) -> None:
        prompt = wanted(typed, "words that say what to draw, such as /draw a red apple")
        settings = self.turn_settings()
        await self.screen.add_user_turn(f"draw {prompt}", await self.screen.prompt.take_attached())
        number = self.app.controls.n
        await self.screen.ask(DrawRequest(prompt=prompt, settings=settings, number=number))

    async def _describe(self, typed: Typed) -> None:
        self.needed("look", "look at pictures")
        attached = await self.screen.prompt.take_attached()
        picture = attached[-1] if attached else self.last_picture()
        await self.describe(picture, typed.rest, attached)

    async def describe(
        self, picture: Picture, question: str = "", attached: tuple[Picture, ...] = ()
    ) -> None:
        """Ask what a picture shows."""
        self.needed("look", "look at pictures")
        settings = self.turn_settings()
        await self.screen.add_user_turn(question or "what is this?", attached)
        request = CaptionRequest(picture=picture, prompt=question or None, settings=settings)
        await self.screen.ask(request)

    async def _best(self, typed: Typed) -> None:
        number, _, words = typed.rest.partition(" ")
        if not number.isdecimal() or not 2 <= int(number) <= MAX_CANDIDATES:
            raise SettingsError(
                f"/best takes a number from 2 to {MAX_CANDIDATES} and words, such as "
                "/best 4 a red apple"
            )
        self.needed("look", "look at pictures, so it cannot choose among them; use /n and choose")
        prompt = words.strip() or self.last_prompt()
        settings = self.turn_settings()
        await self.screen.add_user_turn(f"draw {prompt}")
        requests = [
            DrawRequest(prompt=prompt, settings=replace(settings, seed=settings.seed + index))
            for index in range(int(number))
        ]
        turns = await self.screen.ask(*requests)
        self.screen.judge_when_done(turns, prompt)

    async def _compare(self, typed: Typed) -> None:
        info = self.needed("draw", "draw")
        served = {model.name for model in await self.app.backend.models()}
        kinds = {name: "model" for name in (*self.app.model_names, *served, info.model)}
        kinds |= {item.name: "tokenizer" for item in info.tokenizers if item.name not in kinds}

        def kind_of(word: str) -> str | None:
            return "seed" if word.isdecimal() else kinds.get(word, "model" if "/" in word else None)

        words, sides = typed.words, list[str]()
        while words and len(sides) < 2 and kind_of(words[0]) is not None:
            sides.append(words.pop(0))
        prompt = " ".join(words) or self.last_prompt()
        found = {kind_of(side) for side in sides} or {"seed"}
        if len(found) > 1:
            raise SettingsError(
                "/compare takes two models, two tokenizers or two seeds, not one of each"
            )
        settings = self.turn_settings()
        backends: list[AbstractBackend] = []
        match found.pop():
            case "seed":
                seeds = [int(side) for side in sides]
                while len(seeds) < 2:
                    seeds.append(new_seed())
                changes = [replace(settings, seed=seed) for seed in seeds]
            case "tokenizer":
                if len(sides) == 1:
                    chosen = settings.tokenizer or info.tokenizers[0].name
                    sides.insert(0, chosen)
                changes = [replace(settings, tokenizer=side, size=None) for side in sides]
            case _:
                if len(sides) == 1:
                    sides.insert(0, info.model)
                changes = [replace(settings, tokenizer=None, size=None)] * 2
                backends = [self._backend_of(side, info.model, served) for side in sides]
        requests = [DrawRequest(prompt=prompt, settings=changed) for changed in changes]
        await self.screen.add_user_turn(f"draw {prompt}")
        await self.screen.ask(*requests, backends=backends)

    def _backend_of(self, model: str, current: str, served: set[str]) -> AbstractBackend:
        """Return what draws with a model: what answers now, its server, or this process."""
        if model == current:
            return self.app.backend
        endpoint = self.app.endpoint if model in served else None
        return self.app.make_backend(model, endpoint)

    async def _refine(self, typed: Typed) -> None:
        await self.refine(self.last_drawn(), typed.rest)

    async def refine(self, picture: Picture, tokens: str = "") -> None:
        """Go on with a picture of variable length, up to a number of tokens."""
        info = self.needed("extend", "go on with a picture; the pictures it draws have one length")
        done = (picture.drawing.num_done if picture.drawing else None) or 0
        lengths = next(
            (item.lengths for item in info.tokenizers if item.name == picture.tokenizer), ()
        )
        longer = [length for length in lengths if length > done]
        length = self.app.controls.changed("tokens", tokens).tokens if tokens else None
        length = length if tokens else next(iter(longer), None)
        if length is None or length not in longer:
            there = f"choose one of {', '.join(map(str, longer))}" if longer else "it is whole"
            raise SettingsError(f"this picture has {done} tokens; {there}")
        settings = replace(self.turn_settings(), length=length)
        prompt = picture.drawing.prompt if picture.drawing else ""
        await self.screen.add_user_turn(f"refine to {length} tokens")
        await self.screen.ask(DrawRequest(prompt=prompt, settings=settings, extends=picture))

    async def _attach(self, typed: Typed) -> None:
        words = wanted(typed, "the path or address of a picture")
        for word in words_in(words):
            await self.screen.prompt.attach(word)

    async def _paste(self, typed: Typed) -> None:
        await self.screen.prompt.attach_from_clipboard()

    async def _detach(self, typed: Typed) -> None:
        attached = self.screen.prompt.attached
        if not typed.rest:
            await self.screen.prompt.detach(*attached)
        elif typed.rest.isdecimal() and 1 <= int(typed.rest) <= len(attached):
            await self.screen.prompt.detach(attached[int(typed.rest) - 1])
        else:
            raise SettingsError(
                f"there are {len(attached)} attached pictures, got number {typed.rest!r}"
            )

    async def _save(self, typed: Typed) -> None:
        target = Path(typed.rest).expanduser() if typed.rest else self.app.settings.pictures
        self.screen.say(await carry_out(self.last_picture(), "save", target))

    async def _copy(self, typed: Typed) -> None:
        self.screen.say(await carry_out(self.last_picture(), "copy"))

    async def _open(self, typed: Typed) -> None:
        self.screen.say(await carry_out(self.last_picture(), "open"))

    async def _gallery(self, typed: Typed) -> None:
        self.screen.action_gallery()
