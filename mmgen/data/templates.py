"""From a row to training documents: draw this, what is this, draw and then talk about it.

A template decides by its random numbers alone, so that the same row, variant and seed always give
the same document.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeAlias

from PIL import Image as PilImage

from mmgen.data.phrases import prompt
from mmgen.data.questions import QUESTIONS, Question, Subject, name_question
from mmgen.document import Document, Image, Text, Turn

__all__ = ["TEMPLATES", "Scene", "Template"]

# Kinds of questions that say too little, or give away too much, to begin with.
_NOT_FIRST = frozenset({"sort", "tone", "size", "position", "background", "is_style"})
_NOT_AFTER_DRAWING = frozenset(
    {"name", "describe", "is_name", "shape", "count", "size", "position"}
)
_REPEATABLE = frozenset({"is_colour", "is_class", "is_name", "is_style"})
_GREETINGS = (
    ("hi", "Hello! What shall I draw?"),
    ("hello", "Hello! What shall I draw?"),
    ("Hello!", "Hello! Ask me to draw something, or show me a picture."),
    ("who are you?", "I draw pictures from words and tell what pictures show."),
    ("what can you do?", "I draw pictures from words and tell what pictures show."),
)
_THANKS = (
    ("thank you", "You are welcome."),
    ("thanks", "You are welcome."),
    ("Thanks!", "You are welcome!"),
    ("nice", "I am glad that you like it."),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One row as a template sees it."""

    attributes: Mapping[str, str]
    captions: tuple[str, ...]
    picture: PilImage.Image
    """To be drawn: as the source has it."""
    shown: PilImage.Image
    """To be described: perhaps shifted or tinted."""
    colours: Mapping[str, float]
    """Share of the subject that has each colour."""
    others: Sequence[Mapping[str, str]]
    """Attributes of many rows of the source."""
    tokenizer: str
    """Visual tokenizer that spells the picture."""

    @property
    def subject(self) -> Subject:
        return Subject(
            attributes=self.attributes,
            captions=self.captions,
            colours=self.colours,
            others=self.others,
        )


Template: TypeAlias = Callable[[Scene, Random], Document]


def draw(scene: Scene, rng: Random) -> Document:
    """Return a dialogue in which the user asks for the picture and gets it."""
    turns = [*_greeting(rng, 0.02), *_drawing(scene, rng)]
    if rng.random() < 0.02:
        turns += _exchange(rng.choice(_THANKS))
    return Document(turns=tuple(turns))


def describe(scene: Scene, rng: Random) -> Document:
    """Return a dialogue about a picture that the user shows."""
    image = Image(picture=scene.shown, tokenizer=scene.tokenizer)
    questions = _questions(scene, rng, rng.randint(1, 4), _NOT_FIRST, frozenset())
    if not questions:
        return Document(turns=(Turn("user", (image,)), Turn("assistant", (Text("A picture."),))))
    asked, *rest = questions
    first = _first_exchange(image, asked, rng)
    turns = [*_greeting(rng, 0.01), *first]
    for item in rest:
        turns += _exchange(item)
    return Document(turns=tuple(turns))


def mixed(scene: Scene, rng: Random) -> Document:
    """Return a dialogue in which the user asks for the picture and then about it."""
    turns = [*_greeting(rng, 0.05), *_drawing(scene, rng)]
    for item in _questions(scene, rng, rng.randint(1, 3), frozenset(), _NOT_AFTER_DRAWING):
        turns += _exchange(item)
    if rng.random() < 0.1:
        turns += _exchange(rng.choice(_THANKS))
    return Document(turns=tuple(turns))


def name(scene: Scene, rng: Random) -> Document:
    """Return a dialogue in which the user shows a picture and is told what it is."""
    image = Image(picture=scene.shown, tokenizer=scene.tokenizer)
    return Document(turns=_first_exchange(image, name_question(scene.subject, rng), rng))


TEMPLATES: Mapping[str, Template] = {
    "draw": draw,
    "describe": describe,
    "mixed": mixed,
    "name": name,
}
"""Every template by the name of its direction."""


def _drawing(scene: Scene, rng: Random) -> tuple[Turn, Turn]:
    text = prompt(scene.attributes, scene.captions, list(scene.colours), rng)
    image = Image(picture=scene.picture, tokenizer=scene.tokenizer)
    return Turn("user", (Text(text),)), Turn("assistant", (image,))


def _first_exchange(image: Image, item: Question, rng: Random) -> tuple[Turn, Turn]:
    """Return a question about a picture that is shown with it, before it as a rule."""
    question, answer = item
    first = (image, Text(question)) if rng.random() < 0.9 else (Text(question), image)
    return Turn("user", first), Turn("assistant", (Text(answer),))


def _exchange(item: Question) -> tuple[Turn, Turn]:
    question, answer = item
    return Turn("user", (Text(question),)), Turn("assistant", (Text(answer),))


def _greeting(rng: Random, share: float) -> tuple[Turn, ...]:
    return _exchange(rng.choice(_GREETINGS)) if rng.random() < share else ()


def _questions(
    scene: Scene, rng: Random, count: int, not_first: frozenset[str], never: frozenset[str]
) -> list[Question]:
    """Return at most `count` questions, no kind twice except those with yes or no."""
    subject = scene.subject
    result: list[Question] = []
    left = {kind: weight for kind, (_, weight) in QUESTIONS.items() if kind not in never}
    while left and len(result) < count:
        open_kinds = [kind for kind in left if result or kind not in not_first]
        if not open_kinds:
            break
        kind = rng.choices(open_kinds, [left[kind] for kind in open_kinds])[0]
        item = QUESTIONS[kind][0](subject, rng)
        if item is None or kind not in _REPEATABLE:
            del left[kind]
        if item is not None and item not in result:
            result.append(item)
    return result
