"""Whether an answer in words names the right thing.

The rule is fixed here, so that a score can be read and repeated. Every concept has several forms:
its own name, and the `name` and `phrase` of each row that shows it. An answer names the concepts of
the longest form that stands in it word for word; of equally long forms the first counts. So "a cat
face" names the cat face and not the cat, and a long answer cannot win by mentioning many things.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable

from mmgen.evaluate.pack import EmojiRow

__all__ = ["ConceptNames", "words"]

ARTICLES = frozenset({"a", "an", "the"})
# A word, or one of the signs that are themselves the name of something.
WORD = re.compile(r"\w+|[#*&+$%!?]")
APOSTROPHES = re.compile("['\u2018\u2019\u02bc]")


def words(text: str) -> tuple[str, ...]:
    """Return the words of a text, without case, accents, apostrophes, punctuation and articles."""
    plain = unicodedata.normalize("NFKD", APOSTROPHES.sub("", text)).casefold()
    plain = "".join(character for character in plain if not unicodedata.combining(character))
    return tuple(word for word in WORD.findall(plain) if word not in ARTICLES)


class ConceptNames:
    """The forms of the concepts of a pack, and the search for them in answers."""

    def __init__(self, rows: Iterable[EmojiRow]) -> None:
        forms: dict[tuple[str, ...], set[str]] = defaultdict(set)
        for row in rows:
            for text in (row.concept, row.name, row.phrase):
                forms[words(text)].add(row.concept)
        forms.pop((), None)
        self._forms = {form: frozenset(concepts) for form, concepts in forms.items()}
        self._longest = max(map(len, self._forms), default=0)

    def named(self, answer: str) -> frozenset[str]:
        """Return the concepts that an answer names: none, one, or several that share a form."""
        said = words(answer)
        for length in range(min(self._longest, len(said)), 0, -1):
            for start in range(len(said) - length + 1):
                concepts = self._forms.get(said[start : start + length])
                if concepts is not None:
                    return concepts
        return frozenset()
