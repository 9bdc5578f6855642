"""What a user can set about answers, as words typed after a command or in the panel.

Names and spellings are the same in the panel, in slash commands and in the settings file. A value
outside its domain is refused where it is typed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from mmgen.errors import SettingsError
from mmgen.generate.engine import MAX_SEED, SamplingParams
from mmgen_chat.backend import BackendInfo, TurnSettings, new_seed

__all__ = ["CONTROLS", "Control", "Controls"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Controls:
    """How answers shall be made. None is as the model has it."""

    tokenizer: str | None = None
    size: tuple[int, int] | None = None
    """Height and width in pixels."""
    tokens: int | None = None
    """Positions of a picture, for visual tokenizers of variable length."""
    guidance: float | None = None
    image_guidance: float | None = None
    """How strongly pictures follow those of the user, if any; None for as the words."""
    seed: int | None = None
    """The same for every answer; None takes a fresh one each time."""
    n: int = 1
    """Pictures drawn for one `/draw`."""
    text_temperature: float | None = None
    text_top_k: int | None = None
    image_temperature: float | None = None
    image_top_k: int | None = None
    answer: int | None = None
    """Longest answer in words, in tokens."""

    def turn_settings(self, info: BackendInfo | None) -> TurnSettings:
        """Return the settings of the next answer."""
        text = info.text_sampling if info else None
        image = info.image_sampling if info else None
        return TurnSettings(
            seed=new_seed() if self.seed is None else self.seed,
            guidance_scale=self.guidance,
            image_guidance_scale=self.image_guidance,
            text_sampling=_sampling(self.text_temperature, self.text_top_k, text),
            image_sampling=_sampling(self.image_temperature, self.image_top_k, image),
            tokenizer=self.tokenizer,
            size=self.size,
            length=self.tokens,
            max_text_ids=self.answer,
        )

    def changed(self, name: str, text: str) -> Self:
        """Return the controls with one set as a user writes it; nothing or `auto` resets it.

        Raises:
            SettingsError: there is no such control, or the value lies outside its domain.
        """
        control = CONTROLS.get(name)
        if control is None:
            raise SettingsError(f"nothing is called {name!r}; there are {', '.join(CONTROLS)}")
        words = text.strip()
        if words.lower() in ("", "auto", "default"):
            return replace(self, **{name: getattr(Controls(), name)})
        try:
            value: Any = control.read(words)
        except ValueError as error:
            if isinstance(error, SettingsError):
                raise
            raise SettingsError(f"{name} is {control.form}, got {words!r}") from None
        return replace(self, **{name: value})

    def shown(self, name: str) -> str:
        """Return a control's value as a user writes it, `auto` where the model decides."""
        value = getattr(self, name)
        if value is None:
            return "auto"
        if isinstance(value, tuple):
            return f"{value[1]}x{value[0]}"
        return f"{value:g}" if isinstance(value, float) else str(value)

    def check(self, info: BackendInfo) -> None:
        """Refuse what a model does not have.

        Raises:
            SettingsError: a tokenizer, a size or a length that it does not offer.
        """
        known = {item.name: item for item in info.tokenizers}
        if not known:
            return
        if self.tokenizer is not None and self.tokenizer not in known:
            raise SettingsError(
                f"{info.model} has no tokenizer {self.tokenizer!r}; there are {', '.join(known)}"
            )
        tokenizer = known[self.tokenizer] if self.tokenizer else info.tokenizers[0]
        if self.size is not None and tokenizer.sizes and self.size not in tokenizer.sizes:
            sizes = ", ".join(f"{width}x{height}" for height, width in tokenizer.sizes)
            raise SettingsError(
                f"{tokenizer.name} has no pictures of {self.shown('size')} pixels; "
                f"there are {sizes}"
            )
        if self.tokens is not None and self.tokens not in tokenizer.lengths:
            lengths = ", ".join(map(str, tokenizer.lengths))
            there = f"there are {lengths}" if lengths else "its pictures have one length"
            raise SettingsError(
                f"{tokenizer.name} has no pictures of {self.tokens} tokens; {there}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """One thing that can be set."""

    label: str
    form: str
    """What a value looks like, in words."""
    read: Callable[[str], Any]


def _whole(least: int, most: int | None = None) -> Callable[[str], int]:
    def read(text: str) -> int:
        value = int(text)
        if value < least or (most is not None and value > most):
            raise ValueError
        return value

    return read


def _number(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise ValueError
    return value


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9][0-9]{0,4})[xX×]([1-9][0-9]{0,4})", text)
    if match is None:
        raise ValueError
    return (int(match[2]), int(match[1]))


_TOP_K = _whole(1)

CONTROLS: Mapping[str, Control] = {
    "tokenizer": Control(label="tokenizer", form="the name of a visual tokenizer", read=str),
    "size": Control(label="size", form="WIDTHxHEIGHT in pixels, such as 64x64", read=_size),
    "tokens": Control(label="tokens", form="a number of 1 or more", read=_whole(1)),
    "guidance": Control(label="guidance", form="a number of 0 or more", read=_number),
    "image_guidance": Control(label="by pictures", form="a number of 0 or more", read=_number),
    "seed": Control(label="seed", form="a number from 0 to 2**63 - 1", read=_whole(0, MAX_SEED)),
    "n": Control(label="pictures", form="a number from 1 to 16", read=_whole(1, 16)),
    "text_temperature": Control(
        label="text temp.", form="a number of 0 or more; 0 takes the best", read=_number
    ),
    "text_top_k": Control(label="text top-k", form="a number of 1 or more", read=_TOP_K),
    "image_temperature": Control(
        label="image temp.", form="a number of 0 or more; 0 takes the best", read=_number
    ),
    "image_top_k": Control(label="image top-k", form="a number of 1 or more", read=_TOP_K),
    "answer": Control(label="answer", form="a number of tokens, 1 or more", read=_whole(1)),
}
"""All of them, in the order of the panel."""


def _sampling(
    temperature: float | None, top_k: int | None, default: SamplingParams | None
) -> SamplingParams | None:
    """Return a model's own sampling with what the user set, None where nothing was set."""
    if temperature is None and top_k is None:
        return None
    own = default or SamplingParams()
    return replace(
        own,
        temperature=own.temperature if temperature is None else temperature,
        top_k=own.top_k if top_k is None else top_k,
    )
