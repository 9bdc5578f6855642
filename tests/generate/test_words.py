from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mmgen.errors import SettingsError
from mmgen.generate.engine import SamplingParams
from mmgen.generate.events import TurnFailed, TurnFinished
from mmgen.generate.requests import CaptionRequest
from mmgen.generate.session import Session
from mmgen.generate.words import Words, WordSettings
from mmgen.text_tokenizer import BpeTokenizer, train_bpe
from mmgen.vocabulary import Vocabulary

TEXTS = ["a fox and a red foxglove", "what is this? a photo of a fox", "photos of the cat’s food"]
TOKENIZER = train_bpe(TEXTS * 3, num_ids=320)
VOCABULARY = Vocabulary.build(
    num_text_ids=TOKENIZER.num_ids, text_fingerprint=TOKENIZER.fingerprint
)
WORDS = Words(VOCABULARY, TOKENIZER)


def words_of(text: str) -> list[str]:
    """Return the words of a text, by a rule of its own."""
    return re.findall(r"[a-z0-9_\u0080-\U0010ffff]+", text.lower())


def is_said(text: str, phrase: str) -> bool:
    """Return whether a phrase begins at the start of some word of a text."""
    return bool(re.search(rf"(?<![a-z0-9_\u0080-\U0010ffff]){re.escape(phrase)}", text.lower()))


@given(text=st.text(st.sampled_from("foxa Xgl.,ß\n"), max_size=24), data=st.data())
def test_avoided_words_are_refused_just_where_they_would_stand(
    text: str, data: st.DataObject
) -> None:
    phrases = ("fox", "a g", "ox")
    state = WORDS.rule(WordSettings(avoid=phrases)).begin()
    said = b""
    for id_ in TOKENIZER.encode(text):
        allowed = state.allowed()
        after = (said + TOKENIZER.pieces[id_]).decode(errors="replace")
        is_clean = not any(is_said(after, phrase) for phrase in phrases)
        assert allowed[id_] == is_clean
        if not is_clean:
            return
        state.advance(id_)
        said += TOKENIZER.pieces[id_]
    assert state.allowed()[VOCABULARY.end_id]


def test_a_word_is_avoided_however_it_is_cut() -> None:
    rule = WORDS.rule(WordSettings(avoid=("fox",)))
    spellings = [b"fox", b" fox", b"f", b"fo", b"x", b"ox", b" f", b"o"]
    known = {piece: id_ for id_, piece in enumerate(TOKENIZER.pieces)}
    assert known.keys() >= {b"f", b"o", b"x"}
    for start in spellings:
        state = rule.begin()
        said, piece = b"", start
        while piece in known and not (said + piece).strip().startswith(b"fox"):
            assert state.allowed()[known[piece]]
            state.advance(known[piece])
            said += piece
            rest = b"fox"[len(said.strip()) :]
            if not b"fox".startswith(said.strip()):
                break
            assert not state.allowed()[WORDS.beginning_with(rest)].any()
            piece = rest[:1]


@given(text=st.text(st.sampled_from("ab _.ß1\n"), max_size=24))
def test_words_are_counted_across_pieces(text: str) -> None:
    number = len(words_of(text))
    ids = TOKENIZER.encode(text)

    def ends(settings: WordSettings) -> tuple[bool, bool]:
        state = WORDS.rule(settings).begin()
        fits = True
        for id_ in ids:
            fits = fits and bool(state.allowed()[id_])
            state.advance(id_)
        return fits, bool(state.allowed()[VOCABULARY.end_id])

    assert ends(WordSettings(max_words=max(number, 1))) == (True, True)
    if number > 1:
        assert ends(WordSettings(max_words=number - 1))[0] is False
    assert ends(WordSettings(min_words=number)) == (True, True)
    assert ends(WordSettings(min_words=number + 1)) == (True, False)


@pytest.mark.parametrize(
    ("text", "is_whole"),
    [
        ("a fox", True),
        ("Fox!", True),
        ("a foxglove", False),
        ("a firefox", False),
        ("fo x", False),
        ("a foxglove, a fox", True),
    ],
)
def test_an_answer_may_end_when_all_words_came(text: str, is_whole: bool) -> None:
    settings = WordSettings(include=("fox",))
    state = WORDS.rule(settings).begin()
    for id_ in TOKENIZER.encode(text):
        assert state.allowed()[id_]
        state.advance(id_)
    assert state.allowed()[VOCABULARY.end_id] == is_whole
    assert settings.missing(text) == ([] if is_whole else ["fox"])


def test_a_prefix_counts() -> None:
    state = WORDS.rule(WordSettings(include=("fox",), max_words=3), "A fox").begin()
    allowed = state.allowed()
    assert allowed[VOCABULARY.end_id]
    (x,) = TOKENIZER.encode("x")
    state.advance(x)
    assert not state.allowed()[VOCABULARY.end_id]
    blank, letter = TOKENIZER.encode("\n")[0], TOKENIZER.encode("b")[0]
    state.advance(blank)
    assert state.allowed()[letter]
    state.advance(letter)
    state.advance(blank)
    assert not state.allowed()[letter]
    avoiding = WORDS.rule(WordSettings(avoid=("fox",)), "a fo").begin()
    assert not avoiding.allowed()[x]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"include": ("",)}, "include takes words that begin with a letter"),
        ({"avoid": (" fox",)}, "avoid takes words"),
        ({"avoid": ("a  fox",)}, "single spaces"),
        ({"avoid": ("!",)}, "begin with a letter"),
        ({"include": ("a red fox",), "avoid": ("red",)}, "one holds the other"),
        ({"min_words": -1}, "min_words must be 0 or more"),
        ({"max_words": 0}, "max_words 1 or more"),
        ({"min_words": 5, "max_words": 4}, "at most 4 words may come and 5 must"),
        ({"include": ("a b", "c"), "max_words": 2}, "at most 2 words may come and 3 must"),
    ],
)
def test_bad_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        WordSettings(**changes)


def test_settings_that_ask_nothing_say_so() -> None:
    assert WordSettings().is_free and not WordSettings(max_words=3).is_free


def test_a_model_keeps_to_the_words(session: Session) -> None:
    codec = session.codec
    assert isinstance(codec.text_tokenizer, BpeTokenizer)
    words = Words(codec.vocabulary, codec.text_tokenizer)
    settings = WordSettings(avoid=("f", "a"), min_words=2, max_words=4)
    array = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    requests = [
        CaptionRequest(
            picture=Image.fromarray(array),
            seed=seed,
            sampling=SamplingParams(temperature=2.0),
            rule=words.rule(settings),
            max_text_ids=40,
        )
        for seed in range(16)
    ]
    ended = 0
    for event in session.run(requests):
        assert not isinstance(event, TurnFailed), event
        if isinstance(event, TurnFinished):
            # U+FFFD stands for bytes that are no character; they count as letters.
            found = words_of(event.text)
            assert not any(word.startswith(("f", "a")) for word in found)
            assert len(found) <= 4
            ended += event.end == "end"
            assert event.end != "end" or len(found) >= 2
    assert ended
