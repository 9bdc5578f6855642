"""Conversations as frozen data: a tree of turns, each with words and pictures in order.

Editing a turn or asking again adds a sibling, so nothing said or drawn is ever lost; the current
branch is the way from the root to one leaf. Codes are what a drawn picture is; its PNG is a
rendering of them. Nothing here knows of models, files or screens.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Literal, TypeAlias

from mmgen.visual_tokenizer import Codes

__all__ = [
    "Applied",
    "Conversation",
    "Drawing",
    "Picture",
    "Role",
    "Segment",
    "State",
    "Turn",
    "Usage",
    "Words",
    "new_id",
    "now",
]

Role: TypeAlias = Literal["user", "assistant"]

State: TypeAlias = Literal["running", "complete", "stopped", "failed"]
"""`running` on disk means that the process died meanwhile; `stopped` is a user's wish."""


def new_id() -> str:
    """Return an id that nothing else has."""
    return uuid.uuid4().hex


def now() -> datetime:
    """Return the present time in UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Token ids that an answer took; None where a server does not say."""

    prompt_ids: int | None = None
    text_ids: int | None = None
    image_ids: int | None = None

    @property
    def context_ids(self) -> int | None:
        """Ids of the context in use after the answer."""
        counts = [self.prompt_ids, self.text_ids, self.image_ids]
        known = [count for count in counts if count is not None]
        return sum(known) if self.prompt_ids is not None else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """The settings that an answer was made with, as far as the backend tells."""

    model: str
    seed: int | None = None
    guidance_scale: float | None = None
    temperature: float | None = None
    """Of the words."""
    top_k: int | None = None
    """Of the words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """How a picture was drawn. None where the backend does not tell."""

    prompt: str
    """What was asked for, in the words of the user."""
    model: str
    seed: int | None = None
    guidance_scale: float | None = None
    image_guidance_scale: float | None = None
    """Of the pictures that the user had shown, where these were guided apart from the words."""
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    num_done: int | None = None
    """Codes that are there."""
    num_codes: int | None = None
    """Codes of the whole picture."""
    seconds: float | None = None
    """From its start to the last code that is there."""

    @property
    def is_complete(self) -> bool:
        """Whether nothing is missing."""
        return self.num_done == self.num_codes

    @property
    def guidance(self) -> str | None:
        """The guidance that was applied, in words; None where the backend does not tell."""
        if self.guidance_scale is None:
            return None
        apart = self.image_guidance_scale
        pictures = "" if apart is None else f", by pictures {apart:g}"
        return f"guidance {self.guidance_scale:g}{pictures}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A picture in a turn. It has codes, a rendering, or both."""

    id: str = field(default_factory=new_id)
    png: bytes | None = None
    """The rendering of a drawn picture, or an attached one as it was given; a whole PNG file."""
    size: tuple[int, int] | None = None
    """Height and width of the rendering in pixels."""
    codes: Codes | None = None
    """What a drawn picture is; for an attached one, how the model sees it, once it has."""
    tokenizer: str | None = None
    """Name of the visual tokenizer that the codes belong to."""
    fingerprint: str | None = None
    """Fingerprint of that tokenizer."""
    drawing: Drawing | None = None
    """How it was drawn; None for an attached one."""
    source: str | None = None
    """Where an attached one came from: a file name, an address, or `clipboard`."""
    alt: str | None = None
    """What it shows in words, for screen readers and plain terminals."""

    @property
    def is_drawn(self) -> bool:
        """Whether a model drew it."""
        return self.drawing is not None


@dataclass(frozen=True, slots=True)
class Words:
    """Some text, as it came: not yet safe for a terminal."""

    text: str


Segment: TypeAlias = Words | Picture


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What one side said, words and pictures in order."""

    id: str = field(default_factory=new_id)
    parent_id: str | None = None
    """The turn before; None for the first of a conversation."""
    role: Role
    segments: tuple[Segment, ...] = ()
    state: State = "complete"
    failure: str | None = None
    """Why it broke off; what came before is in `segments`."""
    usage: Usage | None = None
    applied: Applied | None = None
    seconds: float | None = None
    created: datetime = field(default_factory=now)

    @property
    def text(self) -> str:
        """All its words."""
        return "".join(item.text for item in self.segments if isinstance(item, Words))

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """All its pictures in order."""
        return tuple(item for item in self.segments if isinstance(item, Picture))

    def with_picture(self, picture: Picture) -> Turn:
        """Return the turn with a later state of one of its pictures."""
        return replace(
            self,
            segments=tuple(
                picture if isinstance(item, Picture) and item.id == picture.id else item
                for item in self.segments
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """A tree of turns and the branch that is being looked at."""

    id: str = field(default_factory=new_id)
    title: str = ""
    created: datetime = field(default_factory=now)
    changed: datetime = field(default_factory=now)
    turns: Mapping[str, Turn] = field(default_factory=lambda: MappingProxyType({}))
    """By id, in the order of creation; a parent comes before its children."""
    leaf_id: str | None = None
    """Last turn of the current branch; None before the first turn."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "turns", MappingProxyType(dict(self.turns)))

    def path(self, leaf_id: str | None = None) -> tuple[Turn, ...]:
        """Return the turns of a branch from the first to its leaf; by default the current one."""
        turns: list[Turn] = []
        at = self.leaf_id if leaf_id is None else leaf_id
        while at is not None:
            turns.append(self.turns[at])
            at = self.turns[at].parent_id
        return tuple(reversed(turns))

    def children(self, turn_id: str | None) -> tuple[Turn, ...]:
        """Return the turns that follow one, the oldest first; None gives the first turns."""
        return tuple(turn for turn in self.turns.values() if turn.parent_id == turn_id)

    def siblings(self, turn_id: str) -> tuple[Turn, ...]:
        """Return the versions of a turn, itself among them, the oldest first."""
        return self.children(self.turns[turn_id].parent_id)

    def with_turn(self, turn: Turn) -> Conversation:
        """Return the conversation with a turn added, or an earlier state of it replaced.

        A new turn becomes the leaf of the current branch.
        """
        assert turn.parent_id is None or turn.parent_id in self.turns, "a turn needs its parent"
        is_new = turn.id not in self.turns
        return replace(
            self,
            turns={**self.turns, turn.id: turn},
            leaf_id=turn.id if is_new else self.leaf_id,
            changed=now(),
        )

    def with_picture(self, picture: Picture) -> Conversation:
        """Return the conversation with a later state of a picture, in every turn that has it."""
        result = self
        for turn in self.turns.values():
            if any(item.id == picture.id for item in turn.pictures):
                result = result.with_turn(turn.with_picture(picture))
        return result

    def with_branch(self, turn_id: str | None) -> Conversation:
        """Return the conversation looking at the branch through a turn, down to its newest leaf.

        None looks at nothing: the next turn then begins the conversation anew.
        """
        leaf_id = turn_id
        while leaf_id is not None and (below := self.children(leaf_id)):
            leaf_id = below[-1].id
        return replace(self, leaf_id=leaf_id)

    def with_leaf(self, turn_id: str | None) -> Conversation:
        """Return the conversation ending at a turn, so that the next one becomes its child."""
        assert turn_id is None or turn_id in self.turns, "a leaf is one of the turns"
        return replace(self, leaf_id=turn_id)

    def beside(self, turn_id: str, step: int) -> Conversation:
        """Return the conversation with another version of a turn: 1 is the next, -1 the last.

        It stays as it is where there is none.
        """
        versions = [turn.id for turn in self.siblings(turn_id)]
        index = versions.index(turn_id) + step
        return self.with_branch(versions[index]) if 0 <= index < len(versions) else self

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """All pictures of all branches, the oldest first."""
        return tuple(picture for turn in self.turns.values() for picture in turn.pictures)
