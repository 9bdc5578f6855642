"""Questions about a picture whose answers are known, with short answers.

Yes and no come up equally often: a question that shall be answered with no is made from another
row, so that a class is denied about as often as it is met.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeAlias

from mmgen.data.colours import COLOUR_NAMES
from mmgen.data.kinds import CLASSES, group_form, sort_of
from mmgen.data.phrases import capitalised, joined, name_of, phrase_of, sentence

__all__ = ["QUESTIONS", "Question", "QuestionMaker", "Subject", "name_question"]

Question: TypeAlias = tuple[str, str]
"""A question and its answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is known of the picture that is asked about."""

    attributes: Mapping[str, str]
    captions: tuple[str, ...]
    colours: Mapping[str, float]
    """Share of the subject that has each colour."""
    others: Sequence[Mapping[str, str]]
    """Attributes of many rows, from which wrong answers are taken."""


QuestionMaker: TypeAlias = Callable[[Subject, Random], Question | None]
"""Makes a question about a subject, or None if nothing is known that it could ask."""

_YES_SHARE = 0.5
_SURE_OF_COLOUR = 0.15
_SURE_OF_ABSENCE = 0.02


def _asked(rng: Random, usual: str, *others: str, usual_share: float = 0.5) -> str:
    """Return the usual wording in its share of cases, written with or without care."""
    text = usual if not others or rng.random() < usual_share else rng.choice(others)
    form = rng.random()
    if form < 0.3:
        return capitalised(text)
    return text.removesuffix("?") if form > 0.9 else text


def name_question(subject: Subject, rng: Random) -> Question:
    """Return the question what a picture shows, in one of its wordings, and the answer."""
    phrase = phrase_of(subject.attributes, subject.captions)
    question = _asked(
        rng, "what is this?", "what is it?", "what do you see?", "what is in the picture?",
        "what does the picture show?", "what's this?", "name this", "which thing is this?",
        usual_share=0.6,
    )  # fmt: skip
    form = rng.random()
    if form < 0.7:
        return question, sentence(phrase)
    return question, sentence(f"it shows {phrase}" if form < 0.9 else f"I see {phrase}")


def _describe(subject: Subject, rng: Random) -> Question | None:
    if not subject.captions:
        return None
    question = _asked(
        rng, "describe it", "describe the picture", "describe this picture.", "caption this",
        "give me a caption", "can you describe it?", "describe this",
    )  # fmt: skip
    return question, sentence(rng.choice(list(subject.captions)))


def _style(subject: Subject, rng: Random) -> Question | None:
    style = subject.attributes.get("style")
    if not style:
        return None
    question = _asked(
        rng, "which style?", "which style is it?", "what style is this?", "what is the style?",
        "in which style is it drawn?", "and the style?",
    )  # fmt: skip
    form = rng.random()
    answers = (f"{style} style", f"it is drawn in {style} style", f"{style}")
    visual = subject.attributes.get("visual")
    if visual and form > 0.85:
        return question, sentence(f"{style} style, with {visual}")
    return question, sentence(answers[0 if form < 0.5 else 1 if form < 0.7 else 2])


def _group(subject: Subject, rng: Random) -> Question | None:
    form = group_form(subject.attributes)
    if form is None:
        return None
    question = _asked(
        rng, "what kind of thing is this?", "what kind of thing is it?", "which kind is it?",
        "what type of thing is this?", "what kind of thing?", usual_share=0.6,
    )  # fmt: skip
    return question, sentence(form if rng.random() < 0.8 else f"it is {form}")


def _sort(subject: Subject, rng: Random) -> Question | None:
    sort = sort_of(subject.attributes)
    if sort is None:
        return None
    question = _asked(
        rng, "what sort is it?", "what sort of thing is this?", "what is it, more exactly?",
        "which sort of thing is it?",
    )  # fmt: skip
    return question, sentence(sort.noun)


def _colour(subject: Subject, rng: Random) -> Question | None:
    known = subject.attributes.get("colour")
    names = [known] if known else _clear_colours(subject)
    if not names:
        return None
    if rng.random() < 0.35:
        question = _asked(
            rng, "what is the main color?", "what is the main colour?", "mostly which color?"
        )
        return question, sentence(names[0])
    question = _asked(
        rng, "what color is it?", "what colour is it?", "which color is it?", "and the color?",
        "which colors do you see?", "what colors does it have?", "which colours are there?",
    )  # fmt: skip
    return question, sentence(joined(names[:3]))


def _is_colour(subject: Subject, rng: Random) -> Question | None:
    known = subject.attributes.get("colour")
    present = [known] if known else _clear_colours(subject)
    absent = [
        name
        for name in COLOUR_NAMES
        if name not in present and subject.colours.get(name, 0.0) <= _SURE_OF_ABSENCE
    ]
    if not present or not absent:
        return None
    is_yes = rng.random() < _YES_SHARE
    colour = rng.choice(present if is_yes else absent)
    question = _asked(rng, f"is it {colour}?", f"is there {colour} in it?", f"is this {colour}?")
    return question, _yes_or_no(rng, is_yes, f"it is {colour}", f"it is not {colour}")


def _is_class(subject: Subject, rng: Random) -> Question | None:
    sort = sort_of(subject.attributes)
    if sort is None:
        return None
    is_yes = rng.random() < _YES_SHARE
    if is_yes:
        choice = rng.choice(sort.is_in) if sort.is_in else None
    else:
        choice = _foreign_class(subject, rng, {*sort.is_in, *sort.unclear})
    if choice is None:
        return None
    noun = CLASSES[choice]
    question = _asked(rng, f"is it {noun}?", f"is this {noun}?", f"is that {noun}?")
    return question, _yes_or_no(rng, is_yes, f"it is {noun}", f"it is not {noun}")


def _foreign_class(subject: Subject, rng: Random, excluded: set[str]) -> str | None:
    """Return a class of some other row; classes come up as often as their rows do."""
    for _ in range(20):
        other = sort_of(rng.choice(subject.others)) if subject.others else None
        if other is not None and other.is_in:
            choice = rng.choice(other.is_in)
            if choice not in excluded:
                return choice
    return None


def _is_name(subject: Subject, rng: Random) -> Question | None:
    if not {"name", "phrase"} & set(subject.attributes):
        return None
    is_yes = rng.random() < _YES_SHARE
    phrase = phrase_of(subject.attributes, ())
    if not is_yes:
        foreign = _foreign_phrase(subject, rng)
        if foreign is None:
            return None
        phrase = foreign
    question = _asked(rng, f"is it {phrase}?", f"is this {phrase}?", f"does it show {phrase}?")
    return question, _yes_or_no(rng, is_yes, f"it is {phrase}", f"it is not {phrase}")


def _foreign_phrase(subject: Subject, rng: Random) -> str | None:
    """Return what another row shows, often one of the same kind."""
    own = subject.attributes
    wants_same_kind = rng.random() < 0.5
    for attempt in range(20):
        other = rng.choice(subject.others) if subject.others else {}
        is_fit = not wants_same_kind or attempt > 12 or other.get("kind") == own.get("kind")
        if is_fit and {"name", "phrase"} & set(other):
            if name_of(other, ()) != name_of(own, ()) and phrase_of(other, ()) != phrase_of(
                own, ()
            ):
                return phrase_of(other, ())
    return None


def _is_style(subject: Subject, rng: Random) -> Question | None:
    style = subject.attributes.get("style")
    others = [
        other["style"] for other in subject.others[:500] if other.get("style", style) != style
    ]
    if not style or not others:
        return None
    is_yes = rng.random() < _YES_SHARE
    asked = style if is_yes else rng.choice(others)
    question = _asked(rng, f"is it {asked} style?", f"is it in {asked} style?")
    return question, _yes_or_no(rng, is_yes, f"it is {asked} style", f"it is {style} style")


def _foreign_style(subject: Subject, rng: Random) -> str | None:
    for _ in range(20):
        other = rng.choice(subject.others).get("style") if subject.others else None
        if other is not None and other != subject.attributes.get("style"):
            return other
    return None


def _tone(subject: Subject, rng: Random) -> Question | None:
    tone = subject.attributes.get("tone")
    if not tone:
        return None
    question = _asked(rng, "which skin tone?", "what skin tone is it?", "and the skin tone?")
    return question, sentence(f"{tone} skin tone")


def _count(subject: Subject, rng: Random) -> Question | None:
    count = subject.attributes.get("count")
    if not count:
        return None
    return _asked(rng, "how many are there?", "how many?", "how many do you see?"), sentence(count)


def _shape(subject: Subject, rng: Random) -> Question | None:
    shape = subject.attributes.get("shape")
    if not shape:
        return None
    return _asked(rng, "which shape is it?", "what shape?", "which shape?"), sentence(shape)


def _size(subject: Subject, rng: Random) -> Question | None:
    size = subject.attributes.get("size")
    if not size:
        return None
    return _asked(rng, "how large is it?", "what size is it?", "which size?"), sentence(size)


def _position(subject: Subject, rng: Random) -> Question | None:
    position = subject.attributes.get("position")
    if not position:
        return None
    return _asked(rng, "where is it?", "in which place?"), sentence(f"in the {position}")


def _background(subject: Subject, rng: Random) -> Question | None:
    background = subject.attributes.get("background")
    if not background:
        return None
    question = _asked(rng, "what is the background?", "which color is the background?")
    return question, sentence(background)


QUESTIONS: Mapping[str, tuple[QuestionMaker, float]] = {
    "name": (name_question, 16),
    "group": (_group, 4),
    "sort": (_sort, 2),
    "describe": (_describe, 3),
    "style": (_style, 3),
    "colour": (_colour, 3),
    "is_colour": (_is_colour, 1.5),
    "is_class": (_is_class, 3),
    "is_name": (_is_name, 2),
    "is_style": (_is_style, 1),
    "tone": (_tone, 1),
    "count": (_count, 2),
    "shape": (_shape, 2),
    "size": (_size, 1),
    "position": (_position, 1),
    "background": (_background, 1),
}
"""What may be asked, and how often in proportion."""


def _clear_colours(subject: Subject) -> list[str]:
    return [name for name, share in subject.colours.items() if share >= _SURE_OF_COLOUR]


def _yes_or_no(rng: Random, is_yes: bool, agreement: str, denial: str) -> str:
    if rng.random() < 0.6:
        return "Yes." if is_yes else "No."
    return f"Yes, {agreement}." if is_yes else f"No, {denial}."
