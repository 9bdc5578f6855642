"""Answers that must say some words, may not say others, or have so many words and no more.

Works on the bytes of ids, so that a word is found however the text tokenizer cuts it. A word is a
run of letters, digits, underscores and of anything beyond ASCII; upper and lower case of ASCII
letters are the same.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mmgen.errors import SettingsError
from mmgen.generate.engine import AbstractRule, AbstractRuleState
from mmgen.text_tokenizer import BpeTokenizer, TextTokenizer
from mmgen.vocabulary import Vocabulary

__all__ = ["WordRule", "WordSettings", "Words"]

_LETTERS = np.zeros(256, dtype=np.bool_)
_LETTERS[128:] = True
for _byte in b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz":
    _LETTERS[_byte] = True


@dataclass(frozen=True, slots=True, kw_only=True)
class WordSettings:
    """What is asked of the words of an answer."""

    include: tuple[str, ...] = ()
    """Words or phrases that must all come; the answer does not end before."""
    avoid: tuple[str, ...] = ()
    """Beginnings of words or phrases that never come: `cat` also keeps `cats` out."""
    min_words: int = 0
    """Fewest words."""
    max_words: int | None = None
    """Most words; None for any number."""

    def __post_init__(self) -> None:
        for name, phrases in (("include", self.include), ("avoid", self.avoid)):
            for phrase in phrases:
                if not phrase or phrase != " ".join(phrase.split()) or not _is_letter(phrase):
                    raise SettingsError(
                        f"{name} takes words that begin with a letter or digit, with single "
                        f"spaces between, got {phrase!r}"
                    )
        for phrase in self.include:
            clash = next((item for item in self.avoid if _is_in(item, phrase)), None)
            if clash is not None:
                raise SettingsError(
                    f"{phrase!r} must come and {clash!r} must not; one holds the other"
                )
        if self.min_words < 0 or (self.max_words is not None and self.max_words < 1):
            raise SettingsError(
                f"min_words must be 0 or more and max_words 1 or more, got {self.min_words} and "
                f"{self.max_words}"
            )
        if self.max_words is not None:
            needed = max(self.min_words, sum(len(phrase.split()) for phrase in self.include))
            if needed > self.max_words:
                raise SettingsError(
                    f"at most {self.max_words} words may come and {needed} must; raise max_words"
                )

    @property
    def is_free(self) -> bool:
        """Whether nothing is asked."""
        return self == WordSettings()

    def missing(self, text: str) -> list[str]:
        """Return the words that must come and are not in a text."""
        return [phrase for phrase in self.include if not _has(_plain(text), _plain(phrase))]


class Words:
    """The pieces of a text tokenizer, sorted and measured; makes rules."""

    def __init__(self, vocabulary: Vocabulary, text_tokenizer: TextTokenizer) -> None:
        """Look at every piece once.

        Raises:
            SettingsError: the tokenizer is not byte-level BPE.
        """
        if not isinstance(text_tokenizer, BpeTokenizer):
            raise SettingsError(
                "words can be asked for or ruled out only with byte-level BPE; this model's text "
                "tokenizer is another"
            )
        self.end_id = vocabulary.end_id
        self.pieces = tuple(map(_plain, text_tokenizer.pieces))
        self._order = np.array(
            sorted(range(len(self.pieces)), key=self.pieces.__getitem__), dtype=np.int64
        )
        self._sorted = [self.pieces[place] for place in self._order]
        self.is_used = np.array([bool(piece) for piece in self.pieces])
        # Words that begin in a piece, if a word is open where it starts, and if none is.
        self.starts_inside = np.array([_num_starts(piece, True) for piece in self.pieces])
        self._never: dict[tuple[bytes, ...], npt.NDArray[np.bool_]] = {}
        self.starts_outside = np.array([_num_starts(piece, False) for piece in self.pieces])

    def rule(self, settings: WordSettings, prefix: str = "") -> WordRule:
        """Return the rule for an answer, whose words may begin in a prefix it is given."""
        return WordRule(self, settings, prefix)

    def with_inside(self, phrases: tuple[bytes, ...]) -> npt.NDArray[np.bool_]:
        """Return which ids have one of some phrases inside, from the start of a word on."""
        if phrases not in self._never:
            self._never[phrases] = np.array(
                [any(_starts_in(piece, item) for item in phrases) for piece in self.pieces]
            )
        return self._never[phrases]

    def beginning_with(self, text: bytes) -> npt.NDArray[np.int64]:
        """Return the ids whose pieces begin with some bytes."""
        first = bisect_left(self._sorted, text)
        # No piece has a byte 255: it never occurs in UTF-8, unless it stands alone.
        last = bisect_left(self._sorted, text + b"\xff" * 256, lo=first)
        return self._order[first:last]


class WordRule(AbstractRule):
    """Words that must come, may not come, and how many."""

    def __init__(self, words: Words, settings: WordSettings, prefix: str) -> None:
        self.words = words
        self.settings = settings
        self.prefix = _plain(prefix)
        self.avoid = tuple(map(_plain, settings.avoid))
        self.include = tuple(map(_plain, settings.include))
        self.never = words.with_inside(self.avoid)

    def begin(self) -> AbstractRuleState:
        return _WordState(self)


class _WordState(AbstractRuleState):
    def __init__(self, rule: WordRule) -> None:
        self._rule = rule
        self._text = rule.prefix
        self._num_words = _num_starts(rule.prefix, False)

    def allowed(self) -> npt.NDArray[np.bool_]:
        rule, words, settings = self._rule, self._rule.words, self._rule.settings
        known = np.zeros(words.end_id + 1, dtype=np.bool_)
        known[: len(words.pieces)] = words.is_used & ~rule.never
        for phrase in rule.avoid:
            for rest in self._open_rests(phrase):
                known[words.beginning_with(rest)] = False
        if settings.max_words is not None:
            starts = words.starts_inside if self._is_inside else words.starts_outside
            known[: len(words.pieces)] &= self._num_words + starts <= settings.max_words
        known[words.end_id] = self._num_words >= settings.min_words and all(
            _has(self._text, phrase) for phrase in rule.include
        )
        return known

    def advance(self, id_: int) -> None:
        words = self._rule.words
        if id_ != words.end_id:
            piece = words.pieces[id_]
            self._num_words += _num_starts(piece, self._is_inside)
            self._text += piece

    @property
    def _is_inside(self) -> bool:
        """Whether the text ends within a word."""
        return bool(self._text) and bool(_LETTERS[self._text[-1]])

    def _open_rests(self, phrase: bytes) -> list[bytes]:
        """Return what would complete a phrase that the text has begun, or begins next."""
        rests = [] if self._is_inside else [phrase]
        for length in range(1, len(phrase)):
            start = len(self._text) - length
            if self._text.endswith(phrase[:length]) and (
                start == 0 or not _LETTERS[self._text[start - 1]]
            ):
                rests.append(phrase[length:])
        return rests


def _plain(text: str | bytes) -> bytes:
    """Return text as bytes in lower case, as far as ASCII goes."""
    return (text.encode("utf-8", "replace") if isinstance(text, str) else text).lower()


def _is_letter(phrase: str) -> bool:
    return bool(_LETTERS[_plain(phrase)[0]])


def _is_in(inner: str, outer: str) -> bool:
    """Return whether a phrase stands in another from the start of a word on."""
    inside = _plain(outer)
    return inside.startswith(_plain(inner)) or _starts_in(inside, _plain(inner))


def _starts_in(piece: bytes, phrase: bytes) -> bool:
    """Return whether a phrase stands in a piece after something that is no letter."""
    place = piece.find(phrase, 1)
    while place > 0:
        if not _LETTERS[piece[place - 1]]:
            return True
        place = piece.find(phrase, place + 1)
    return False


def _has(text: bytes, phrase: bytes) -> bool:
    """Return whether a text has a phrase as whole words."""
    place = text.find(phrase)
    while place >= 0:
        stop = place + len(phrase)
        is_start = place == 0 or not _LETTERS[text[place - 1]]
        if is_start and (stop == len(text) or not _LETTERS[text[stop]]):
            return True
        place = text.find(phrase, place + 1)
    return False


def _num_starts(piece: bytes, is_inside: bool) -> int:
    """Return how many words begin in a piece.

    Args:
        is_inside: whether the text before it ends within a word.
    """
    if not piece:
        return 0
    letters = _LETTERS[np.frombuffer(piece, dtype=np.uint8)]
    before = np.concatenate([[is_inside], letters[:-1]])
    return int((letters & ~before).sum())
