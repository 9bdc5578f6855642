"""How users ask for pictures, and how what is in a picture is put into words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random

from mmgen.data.kinds import group_form, sort_of, with_article

__all__ = ["capitalised", "joined", "name_of", "phrase_of", "prompt", "sentence"]

_FRAMES = (
    ("{}", 30),
    ("draw {}", 40),
    ("Draw {}.", 8),
    ("please draw {}", 3),
    ("Please draw {}.", 2),
    ("can you draw {}?", 3),
    ("Can you draw {}?", 2),
    ("draw me {}", 3),
    ("show me {}", 2),
    ("make {}", 1),
    ("create {}", 1),
    ("generate {}", 1),
    ("paint {}", 1),
    ("I want {}", 1),
    ("a picture of {}", 2),
    ("draw a picture of {}", 2),
)
_KEYBOARD = str.maketrans({"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"'})


def prompt(
    attributes: Mapping[str, str], captions: Sequence[str], colours: Sequence[str], rng: Random
) -> str:
    """Return what a user may type who wants this picture."""
    frames, weights = zip(*_FRAMES, strict=True)
    frame = str(rng.choices(frames, weights)[0])
    text = frame.format(_subject(attributes, captions, colours, rng))
    return capitalised(text) if rng.random() < 0.1 else text


def name_of(attributes: Mapping[str, str], captions: Sequence[str]) -> str:
    """Return what is seen, without an article where that is known."""
    return _typed(attributes.get("name", "")) or phrase_of(attributes, captions)


def phrase_of(attributes: Mapping[str, str], captions: Sequence[str]) -> str:
    """Return what is seen as a noun phrase: the phrase, the name with its article, a caption."""
    if "phrase" in attributes:
        return _typed(attributes["phrase"])
    if "name" in attributes:
        return with_article(_typed(attributes["name"]))
    return _lowered(captions[0]) if captions else "a picture"


def joined(words: Sequence[str]) -> str:
    """Return words as an enumeration: `red, green and blue`."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"


def capitalised(text: str) -> str:
    """Return a text with a capital at its start and the rest as it is."""
    return text[:1].upper() + text[1:]


def sentence(text: str) -> str:
    """Return a text with a capital at its start and a full stop at its end."""
    text = capitalised(text.strip())
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _subject(
    attributes: Mapping[str, str], captions: Sequence[str], colours: Sequence[str], rng: Random
) -> str:
    phrase, name = phrase_of(attributes, captions), name_of(attributes, captions)
    style, visual = attributes.get("style", ""), attributes.get("visual", "")
    tone = attributes.get("tone", "")
    if captions and rng.random() < 0.2:
        return _lowered(rng.choice(list(captions)))
    if rng.random() < 0.04:
        phrase = name = _class_of(attributes) or phrase
    elif tone and rng.random() < 0.8:
        phrase, name = (f"{words} with {tone} skin tone" for words in (phrase, name))
    if "size" in attributes and rng.random() < 0.5:
        phrase = f"a {attributes['size']} {name} in the {attributes['position']}"
    if attributes.get("background", "white") != "white" and rng.random() < 0.7:
        phrase = f"{phrase} on a {attributes['background']} background"
    if colours and colours[0] not in phrase and rng.random() < 0.05:
        phrase = f"{phrase}, mostly {colours[0]}"
    forms = [(phrase, 5), (name, 2)]
    if style:
        # A style that is not named can only be guessed, so that most learn with one.
        forms = [(phrase, 2), (name, 1)]
        forms += [
            (f"{phrase}, {style} style", 8),
            (f"{phrase} in {style} style", 6),
            (f"{name}, {style} style", 1),
            (f"{name} in {style} style", 1),
            (f"{style} {name}", 1),
        ]
    if visual:
        forms += [(f"{phrase} with {visual}", 1), (f"{phrase}, {visual}", 1)]
    texts, weights = zip(*forms, strict=True)
    return str(rng.choices(texts, weights)[0])


def _class_of(attributes: Mapping[str, str]) -> str | None:
    sort = sort_of(attributes)
    return sort.noun if sort is not None else group_form(attributes)


def _typed(text: str) -> str:
    """Return a text with the apostrophes and quotes that keyboards have."""
    return text.translate(_KEYBOARD)


def _lowered(caption: str) -> str:
    """Return a caption as part of a sentence: no full stop, and no capital unless it is a name."""
    text = caption.strip().removesuffix(".")
    first = text.split(" ", 1)[0]
    return text if first[1:] != first[1:].lower() else text[:1].lower() + text[1:]
