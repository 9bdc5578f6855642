"""What is known of kinds of things: how a kind is called and which yes-or-no questions fit it.

The keys are the groups and subgroups of Unicode's emoji list and the coarse labels of photo
collections. A kind that is not listed is called by its own name and gets no such questions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

__all__ = ["CLASSES", "GROUP_FORMS", "Sort", "group_form", "sort_of", "with_article"]

GROUP_FORMS: Mapping[str, str] = MappingProxyType(
    {
        "people-body": "a person or a part of the body",
        "smileys-emotion": "a smiley or an emotion",
        "animals-nature": "an animal or a plant",
        "food-drink": "food or a drink",
        "travel-places": "a vehicle or a place",
        "activities": "a game or an event",
        "objects": "an object",
        "symbols": "a symbol",
        "flags": "a flag",
    }
)
"""How each group is called in answers."""

CLASSES: Mapping[str, str] = MappingProxyType(
    {
        "person": "a person",
        "hand": "a hand",
        "face": "a face",
        "animal": "an animal",
        "bird": "a bird",
        "bug": "a bug",
        "plant": "a plant",
        "flower": "a flower",
        "food": "food",
        "drink": "a drink",
        "fruit": "a fruit",
        "vegetable": "a vegetable",
        "vehicle": "a vehicle",
        "building": "a building",
        "clothing": "clothing",
        "tool": "a tool",
        "instrument": "a musical instrument",
        "flag": "a flag",
        "symbol": "a symbol",
        "shape": "a shape",
    }
)
"""Classes that a yes-or-no question asks about, and how the question calls them."""


@dataclass(frozen=True, slots=True)
class Sort:
    """A subgroup: its group, what it is called, and the classes it belongs to."""

    group: str
    noun: str
    is_in: tuple[str, ...] = ()
    unclear: tuple[str, ...] = ()
    """Classes that some members belong to, so that no question is asked."""


_PEOPLE = ("face", "hand", "clothing", "vehicle", "instrument", "tool")
_HANDS = ("person", "tool")
_THINGS = ("tool", "clothing", "instrument", "shape")
_LIVING = ("animal", "plant", "face", "person", "symbol")
_SIGNS = ("person", "face", "animal", "shape", "hand", "plant", "vehicle", "drink", "building")


def _faces(noun: str) -> Sort:
    return Sort("smileys-emotion", noun, ("face",), ("person", "hand"))


def _odd_face(noun: str) -> Sort:
    return Sort("smileys-emotion", noun, ("face",), ("person", "hand", "animal", "symbol"))


def _person(noun: str) -> Sort:
    return Sort("people-body", noun, ("person",), _PEOPLE)


def _hand(noun: str) -> Sort:
    return Sort("people-body", noun, ("hand",), _HANDS)


def _animal(noun: str, *classes: str) -> Sort:
    return Sort("animals-nature", noun, ("animal", *classes), ("face", "food", "bug", "hand"))


def _food(noun: str, *classes: str) -> Sort:
    unclear = ("plant", "animal", "fruit", "vegetable", "drink", "flower", "tool")
    return Sort("food-drink", noun, ("food", *classes), unclear)


def _traffic(noun: str) -> Sort:
    return Sort("travel-places", noun, ("vehicle",), (*_THINGS, "building"))


def _place(noun: str, *classes: str) -> Sort:
    unclear = (*_THINGS, "building", "vehicle", "flower", "food")
    return Sort("travel-places", noun, classes, unclear)


def _activity(noun: str) -> Sort:
    return Sort("activities", noun, (), (*_THINGS, *_LIVING, "flag", "food", "building"))


def _object(noun: str, *classes: str) -> Sort:
    return Sort("objects", noun, classes, (*_THINGS, "building", "hand"))


def _symbol(noun: str, *classes: str) -> Sort:
    return Sort("symbols", noun, ("symbol", *classes), _SIGNS)


_SORTS: Mapping[str, Sort] = MappingProxyType(
    {
        "face-smiling": _faces("a smiling face"),
        "face-affection": _faces("an affectionate face"),
        "face-tongue": _faces("a face with a tongue"),
        "face-hand": _faces("a face with hands"),
        "face-neutral-skeptical": _faces("a neutral face"),
        "face-sleepy": _faces("a sleepy face"),
        "face-unwell": _faces("an unwell face"),
        "face-hat": _faces("a face with a hat"),
        "face-glasses": _faces("a face with glasses"),
        "face-concerned": _faces("a worried face"),
        "face-negative": _odd_face("an angry face"),
        "face-costume": _odd_face("a costume face"),
        "cat-face": _odd_face("a cat face"),
        "monkey-face": _odd_face("a monkey face"),
        "heart": Sort("smileys-emotion", "a heart", (), ("symbol", "shape", "hand")),
        "emotion": Sort("smileys-emotion", "a sign of emotion", (), (*_SIGNS, "symbol")),
        "person": _person("a person"),
        "person-gesture": _person("a person making a gesture"),
        "person-role": _person("a person with a role"),
        "person-fantasy": Sort(
            "people-body", "a fantasy person", ("person",), (*_PEOPLE, "animal")
        ),
        "person-activity": _person("a person doing something"),
        "person-sport": _person("a person doing a sport"),
        "person-resting": _person("a person resting"),
        "person-symbol": Sort("people-body", "a sign for people", (), (*_PEOPLE, *_LIVING)),
        "family": _person("people together"),
        "hand-fingers-open": _hand("an open hand"),
        "hand-fingers-partial": _hand("a hand sign"),
        "hand-single-finger": _hand("a pointing hand"),
        "hand-fingers-closed": _hand("a closed hand"),
        "hands": _hand("hands"),
        "hand-prop": _hand("a hand with something"),
        "body-parts": Sort("people-body", "a part of the body", (), (*_HANDS, *_LIVING, "hand")),
        "animal-mammal": _animal("a mammal"),
        "animal-bird": _animal("a bird", "bird"),
        "animal-reptile": _animal("a reptile"),
        "animal-amphibian": _animal("an amphibian"),
        "animal-marine": _animal("a sea animal"),
        "animal-bug": Sort("animals-nature", "a bug", ("animal", "bug"), ("face", "food")),
        "plant-flower": Sort("animals-nature", "a flower", ("plant", "flower"), ("food",)),
        "plant-other": Sort(
            "animals-nature", "a plant", ("plant",), ("flower", "food", "vegetable", "fruit")
        ),
        "food-fruit": _food("a fruit", "fruit"),
        "food-vegetable": _food("a vegetable", "vegetable"),
        "food-prepared": _food("a dish"),
        "food-asian": _food("Asian food"),
        "food-sweet": _food("something sweet"),
        "drink": Sort("food-drink", "a drink", ("drink",), ("food", "tool", "plant")),
        "dishware": Sort("food-drink", "dishware", (), ("food", "drink", "tool")),
        "place-map": _place("a map or a globe"),
        "place-geographic": _place("a landscape"),
        "place-building": _place("a building", "building"),
        "place-religious": _place("a religious building", "building"),
        "place-other": _place("a place"),
        "transport-ground": _traffic("something in traffic"),
        "transport-water": _traffic("something on the water"),
        "transport-air": _traffic("something in the air"),
        "hotel": _place("something for a hotel"),
        "time": _place("a clock or a timer"),
        "sky-weather": _place("the sky or the weather"),
        "event": _activity("something for a celebration"),
        "award-medal": _activity("an award"),
        "sport": _activity("something for sport"),
        "game": _activity("a game"),
        "arts-crafts": _activity("something for arts and crafts"),
        "clothing": _object("clothing", "clothing"),
        "sound": _object("something for sound"),
        "music": _object("something for music"),
        "musical-instrument": _object("a musical instrument", "instrument"),
        "phone": _object("a phone"),
        "computer": _object("something for a computer"),
        "light-video": _object("something for light or film"),
        "book-paper": _object("a book or paper"),
        "money": _object("money"),
        "mail": _object("something for mail"),
        "writing": _object("something to write with"),
        "office": _object("something for the office"),
        "lock": _object("a lock or a key"),
        "tool": _object("a tool", "tool"),
        "science": _object("something for science"),
        "medical": _object("something for medicine"),
        "household": _object("something for the household"),
        "other-object": _object("an object"),
        "transport-sign": _symbol("a sign for travellers"),
        "warning": _symbol("a warning sign"),
        "arrow": _symbol("an arrow"),
        "religion": _symbol("a religious symbol"),
        "zodiac": _symbol("a sign of the zodiac"),
        "av-symbol": _symbol("a button of a player"),
        "gender": _symbol("a gender symbol"),
        "math": _symbol("a sign of arithmetic"),
        "punctuation": _symbol("a punctuation mark"),
        "currency": _symbol("a sign for money"),
        "other-symbol": _symbol("a symbol"),
        "keycap": _symbol("a key with a sign"),
        "alphanum": _symbol("a button with letters"),
        "geometric": _symbol("a geometric shape", "shape"),
        "flag": Sort("flags", "a flag", ("flag",), ("symbol", "shape")),
        "country-flag": Sort("flags", "a flag of a country", ("flag",), ("symbol", "shape")),
        "subdivision-flag": Sort("flags", "a flag of a region", ("flag",), ("symbol", "shape")),
        "fruit": _food("a fruit", "fruit"),
        "vegetable": _food("a vegetable", "vegetable"),
        "package": Sort("food-drink", "a food package", (), ("food", "drink", "fruit")),
        "flower": Sort("animals-nature", "a flower", ("plant", "flower"), ()),
        "recycling": _object("something to recycle"),
        "shape": Sort("shape", "a shape", ("shape",), ("symbol", "face")),
    }
)  # fmt: skip


def sort_of(attributes: Mapping[str, str]) -> Sort | None:
    """Return what is known of the `subkind`, or else the `kind`, of a picture."""
    return _SORTS.get(attributes.get("subkind", "")) or _SORTS.get(attributes.get("kind", ""))


def group_form(attributes: Mapping[str, str]) -> str | None:
    """Return how the group of a picture is called, None if it has no kind."""
    kind = attributes.get("kind", "")
    if kind in GROUP_FORMS:
        return GROUP_FORMS[kind]
    sort = sort_of(attributes)
    if sort is not None:
        return GROUP_FORMS.get(sort.group, sort.noun)
    return with_article(kind.replace("-", " ").replace("_", " ")) if kind else None


def with_article(name: str) -> str:
    """Return a noun with `a` or `an`; plurals (by their ending) stay without."""
    if name.endswith("s") and not name.endswith(("ss", "us", "is")):
        return name
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"
