"""What a task makes of a row's answers, before it is on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mmgen.document import Document, Turn
from mmgen.generate.events import ImageFinished, TurnEnd, Usage
from mmgen.generate.requests import TurnRequest

__all__ = ["Answer", "EncodedPicture", "More", "Result"]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Answer:
    """What came of one request."""

    request: TurnRequest
    text: str
    images: tuple[ImageFinished, ...]
    """Pictures that were drawn, in order."""
    turn: Turn | None
    """What was said and drawn, images as codes; None where the engine tells no codes."""
    end: TurnEnd
    usage: Usage


@dataclass(frozen=True, slots=True, eq=False)
class EncodedPicture:
    """A picture as the bytes of a file."""

    suffix: str
    """Such as `.png`."""
    data: bytes


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Result:
    """What is kept of a row."""

    fields: Mapping[str, Any]
    """The result line, besides row, id and the paths of pictures: JSON values that depend on
    the row and the job alone, so no times."""
    label: str = ""
    """Words for the names of files."""
    pictures: tuple[EncodedPicture, ...] = ()
    """Pictures that were drawn, or the one that was looked at."""
    document: Document | None = None
    """What to train on; images as codes."""


@dataclass(frozen=True, slots=True, eq=False)
class More:
    """Further requests of a row; their answers are appended to those that are there."""

    requests: tuple[TurnRequest, ...] = field(default=())
