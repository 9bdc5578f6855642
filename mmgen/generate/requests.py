"""What can be asked of a session, and the checks that need no model."""

from __future__ import annotations

import math
import unicodedata
from dataclasses import dataclass
from typing import TypeAlias

from mmgen.document import Document, Image
from mmgen.errors import SettingsError
from mmgen.generate.engine import AbstractRule, SamplingParams
from mmgen.pictures import PictureSource
from mmgen.visual_tokenizer import Codes

__all__ = [
    "CaptionRequest",
    "ChatRequest",
    "DrawRequest",
    "TurnRequest",
    "check_characters",
    "check_prompt",
    "check_scale_of_pictures",
]

_ALLOWED_CONTROLS = "\n\t"


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawRequest:
    """One picture from words. What is None is as the checkpoint has it."""

    prompt: str
    """What to draw."""
    seed: int
    """Decides the picture; another seed gives another one."""
    guidance_scale: float | None = None
    """How strongly the prompt counts; 1 is without guidance."""
    negative_prompt: str | None = None
    """What guidance leads away from; without it, from no condition at all."""
    sampling: SamplingParams | None = None
    """How codes are chosen."""
    size: tuple[int, int] | None = None
    """Height and width in pixels, one of those that the vocabulary has layouts for."""
    tokenizer: str | None = None
    """Which of the checkpoint's visual tokenizers draws."""
    length: int | None = None
    """Positions of the picture, for visual tokenizers of several lengths."""
    begun: Codes | None = None
    """A shorter picture that this one begins with, for tokenizers whose prefixes are pictures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionRequest:
    """Words about one picture. What is None is as the checkpoint has it."""

    picture: PictureSource
    """What to look at."""
    prompt: str | None = None
    """What to ask."""
    seed: int = 0
    """Decides the answer where the temperature is not 0."""
    sampling: SamplingParams | None = None
    """How text ids are chosen."""
    max_text_ids: int = 64
    """Longest answer."""
    tokenizer: str | None = None
    """Which of the checkpoint's visual tokenizers looks."""
    prefix: str = ""
    """How the answer begins; it is not generated, so events leave it out."""
    rule: AbstractRule | None = None
    """A form that the answer, after its prefix, must have."""

    def __post_init__(self) -> None:
        _check_length(self.max_text_ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """The next turn of a dialogue, in words and pictures. None is as the checkpoint has it."""

    document: Document
    """The dialogue so far."""
    seed: int
    """Decides the turn."""
    guidance_scale: float | None = None
    """How strongly pictures follow the dialogue; 1 is without guidance."""
    image_guidance_scale: float | None = None
    """How strongly pictures follow those that the user shows, where these are guided apart; then
    `guidance_scale` is that of the user's words alone. 1 is without guidance."""
    negative_document: Document | None = None
    """The dialogue with other words, which guidance leads away from; without it, from no words."""
    negative_prompt: str | None = None
    """What is told of these words."""
    text_sampling: SamplingParams | None = None
    """How text ids are chosen."""
    image_sampling: SamplingParams | None = None
    """How codes are chosen."""
    max_text_ids: int = 256
    """Text ids after which the turn is over."""
    max_images: int = 1
    """Pictures that the turn may have."""
    must_draw: bool = False
    """Whether the turn opens with a picture, whatever the model would choose; then words may be
    ruled out with `max_text_ids=0`."""
    size: tuple[int, int] | None = None
    """Height and width of the picture that must be drawn."""
    tokenizer: str | None = None
    """Which of the checkpoint's visual tokenizers draws the picture that must be drawn."""
    rule: AbstractRule | None = None
    """A form that the answer must have; then it is in words alone."""

    def __post_init__(self) -> None:
        if self.rule is not None and self.max_images:
            raise SettingsError(
                f"an answer of a given form is in words; max_images must be 0, got "
                f"{self.max_images}"
            )
        if self.image_guidance_scale is not None:
            check_scale_of_pictures(self.image_guidance_scale, self.document)
        if self.max_text_ids != 0 or not self.must_draw:
            _check_length(self.max_text_ids)
        if self.max_images < self.must_draw:
            raise SettingsError(
                f"max_images must be {int(self.must_draw)} or more, got {self.max_images}"
            )
        if not self.must_draw and (self.size or self.tokenizer) is not None:
            raise SettingsError(
                "a size or a tokenizer can be chosen only where a picture must come"
            )


TurnRequest: TypeAlias = DrawRequest | CaptionRequest | ChatRequest


def check_prompt(prompt: str) -> None:
    """Refuse a prompt that says nothing or holds characters that are no text."""
    if not prompt.strip():
        raise SettingsError("the prompt is empty; say in words what is wanted")
    check_characters(prompt)


def check_characters(prompt: str) -> None:
    """Refuse characters that are no text."""
    for index, character in enumerate(prompt):
        kind = unicodedata.category(character)
        if (kind == "Cc" and character not in _ALLOWED_CONTROLS) or kind == "Cs":
            what = "control character" if kind == "Cc" else "byte that is not UTF-8,"
            raise SettingsError(
                f"the prompt holds the {what} {character!r} at character {index + 1}; remove it"
            )


def check_scale_of_pictures(scale: float, document: Document) -> None:
    """Refuse guidance by the pictures that a user shows where it cannot be, or there are none."""
    if not math.isfinite(scale) or scale < 0:
        raise SettingsError(f"image guidance must be 0 or more, got {scale}")
    shown = (turn.segments for turn in document.turns if turn.role == "user")
    if not any(isinstance(segment, Image) for segments in shown for segment in segments):
        raise SettingsError(
            "image guidance is for pictures that follow those that a user shows, and no user shows "
            "any here; leave it out, or show one"
        )


def _check_length(max_text_ids: int) -> None:
    if max_text_ids < 1:
        raise SettingsError(f"an answer needs 1 token or more, got {max_text_ids}")
