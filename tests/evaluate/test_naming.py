"""Which concept an answer names."""

from __future__ import annotations

import pytest

from mmgen.evaluate.naming import ConceptNames, words
from mmgen.evaluate.pack import EmojiRow


def row(concept: str, name: str, phrase: str) -> EmojiRow:
    return EmojiRow(
        id=name, split="train", style="flat", style_phrase="flat", concept=concept, name=name,
        phrase=phrase, group="animals", caption_short=f"{phrase}, flat style", base_hexcode=name,
        tone=0, webp64=b"",
    )  # fmt: skip


NAMES = ConceptNames(
    [
        row("cat", "cat", "a cat"),
        row("cat face", "cat face", "the face of a cat"),
        row("facepalming", "man facepalming", "a man facepalming"),
        row("facepalming", "woman facepalming", "a woman facepalming"),
        row("two o'clock", "two o’clock", "a clock showing two o'clock"),
        row("piñata", "piñata", "a piñata"),
        row("keycap: #", "keycap: #", "a number sign key"),
        row("keycap: *", "keycap: *", "an asterisk key"),
        row("sun", "sun", "the sun"),
        row("sun (symbol)", "sun", "a symbol of the sun"),
    ]
)


@pytest.mark.parametrize(
    ("answer", "concept"),
    [
        ("A cat.", "cat"),
        ("It is the cat, in flat style", "cat"),
        ("a cat face", "cat face"),
        ("the face of the cat", "cat face"),
        ("a WOMAN  facepalming!", "facepalming"),
        ("somebody facepalming", "facepalming"),
        ("two o’clock", "two o'clock"),
        ("a pinata", "piñata"),
        ("keycap #", "keycap: #"),
        ("keycap *", "keycap: *"),
    ],
)
def test_the_longest_form_names_the_concept(answer: str, concept: str) -> None:
    assert NAMES.named(answer) == {concept}


def test_a_form_that_two_concepts_share_names_both() -> None:
    assert NAMES.named("the sun") == {"sun", "sun (symbol)"}


def test_of_equally_long_forms_the_first_counts() -> None:
    assert NAMES.named("a cat under the sun") == {"cat"}


@pytest.mark.parametrize("answer", ["", "a dog", "cats", "concatenate", "the", "?!"])
def test_an_answer_may_name_nothing(answer: str) -> None:
    assert NAMES.named(answer) == frozenset()


def test_words_drop_case_accents_articles_and_punctuation() -> None:
    assert words("The Éclair, an hour's high-heeled (shoe)") == (
        "eclair", "hours", "high", "heeled", "shoe",
    )  # fmt: skip
