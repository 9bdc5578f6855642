"""Which of several pictures of one prompt is best, in the eyes of the model that drew them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mmgen_chat.backend import AbstractBackend, BackendInfo
from mmgen_chat.conversation import Picture
from mmgen_chat.errors import NotSupportedError

__all__ = ["MEASURES", "judge", "naming_score"]

MEASURES = {"score": "likelihood of the words", "look": "words of the prompt that it names"}
"""How pictures are judged, by the ability that it takes."""


async def judge(
    backend: AbstractBackend, info: BackendInfo, pictures: Sequence[Picture], prompt: str
) -> tuple[tuple[float, ...], str]:
    """Return a score for each picture, larger is better, and what was measured.

    A model that cannot give likelihoods is asked what each picture shows; the share of the
    prompt's words in its answer is the score.

    Raises:
        MmgenError: the model can do neither, or failed.
    """
    if "score" in info.abilities:
        likelihoods = [await backend.likelihood(picture, prompt) for picture in pictures]
        return tuple(likelihoods), MEASURES["score"]
    if "look" in info.abilities:
        names = [picture.alt or await backend.caption(picture) for picture in pictures]
        return tuple(naming_score(name, prompt) for name in names), MEASURES["look"]
    raise NotSupportedError(
        f"{info.model} cannot look at pictures, so it cannot choose among them; use /n and choose"
    )


def naming_score(name: str, prompt: str) -> float:
    """Return the share of a prompt's words that a description has."""
    wanted = set(re.findall(r"\w+", prompt.lower())) - _EMPTY_WORDS
    named = set(re.findall(r"\w+", name.lower()))
    return len(wanted & named) / len(wanted) if wanted else 0.0


_EMPTY_WORDS = frozenset("a an and draw in it me of on please some that the this to with".split())
