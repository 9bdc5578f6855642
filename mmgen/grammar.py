"""How documents are spelled in token ids: one automaton that writes, parses and constrains.

    document := BOS body EOS        body := turn+ | (text | image)+
    turn     := (USER | ASSISTANT) (text | null | image)* END
    image    := MARKER shape codes END_IMAGE

`shape` holds the sides in which the tokenizer's layouts differ, so it is empty for one layout. The
codes of an image are counted by its layout, so inside one everything follows from how many ids
have been read. Ids that spell no document are refused where they stop to, never mended.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice, takewhile
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from mmgen.errors import GrammarError, VocabularyError
from mmgen.visual_tokenizer import Codes, Layout
from mmgen.vocabulary import TokenizerRanges, Vocabulary

__all__ = [
    "Grammar",
    "GrammarState",
    "ImageSoFar",
    "ImageSpan",
    "MarkKind",
    "MarkSpan",
    "Role",
    "Span",
    "TextSpan",
]

MarkKind: TypeAlias = Literal["bos", "eos", "user", "assistant", "end"]
"""Which mark of a document or a turn."""

Role: TypeAlias = Literal["user", "assistant"]
"""Who speaks in a turn."""

Ids: TypeAlias = Sequence[int] | npt.NDArray[np.integer]

Phase: TypeAlias = Literal["start", "opened", "free", "between turns", "turn", "finished"]
"""Where a document stands, images aside; `opened` is just after BOS, `free` is without turns."""


@dataclass(frozen=True, slots=True)
class MarkSpan:
    """One id that opens or closes a document or a turn."""

    start: int
    stop: int
    kind: MarkKind


@dataclass(frozen=True, slots=True)
class TextSpan:
    """Neighbouring text ids, and null ids where a condition was dropped."""

    start: int
    stop: int
    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ImageSpan:
    """A whole image, from its marker to the closing marker."""

    start: int
    stop: int
    name: str
    codes: Codes


Span: TypeAlias = MarkSpan | TextSpan | ImageSpan
"""The ids `[start, stop)` of one part of a document; the spans of a document leave no gap."""


@dataclass(frozen=True, slots=True)
class ImageSoFar:
    """The image that is being spelled: its tokenizer and the positions that are complete."""

    name: str
    codes: Codes

    @property
    def layout(self) -> Layout:
        return self.codes.layout


@dataclass(frozen=True, slots=True)
class _OpenImage:
    ranges: TokenizerRanges
    choices: tuple[tuple[tuple[int, ...], Layout], ...]
    """The layouts that the sides spelled so far leave, each with all its sides."""
    num_sides: int = 0
    """Sides spelled so far."""
    ids: tuple[int, ...] = ()
    """Ids of codes so far."""

    @property
    def layout(self) -> Layout | None:
        """The layout, once all sides are spelled."""
        sides, layout = self.choices[0]
        return layout if self.num_sides == len(sides) else None

    @property
    def num_codes_left(self) -> int:
        if self.layout is None:
            return 0
        return self.layout.num_positions * self.ranges.num_codebooks - len(self.ids)

    @property
    def allowed_sides(self) -> set[int]:
        return {sides[self.num_sides] for sides, _ in self.choices}

    def with_side(self, value: int) -> _OpenImage:
        choices = tuple(item for item in self.choices if item[0][self.num_sides] == value)
        return replace(self, choices=choices, num_sides=self.num_sides + 1)


@dataclass(frozen=True, slots=True)
class GrammarState:
    """What is known after some ids of a document; immutable. Made by `Grammar`."""

    grammar: Grammar
    phase: Phase = "start"
    position: int = 0
    """Number of ids read."""
    role: Role | None = None
    """Whose turn is open."""
    open_image: _OpenImage | None = None

    @property
    def allowed(self) -> tuple[range, ...]:
        """The ids that may come next, as ascending ranges with gaps between; empty at the end."""
        image = self.open_image
        vocabulary = self.grammar.vocabulary
        if image is None:
            return self.grammar.allowed_in(self.phase)
        if image.layout is None:
            return _merged(_one(image.ranges.shape_ids[side - 1]) for side in image.allowed_sides)
        if image.num_codes_left:
            return (image.ranges.code_ids[len(image.ids) % image.ranges.num_codebooks],)
        return (_one(vocabulary.end_image_id),)

    @property
    def remaining(self) -> int | None:
        """Ids until the open image is closed, its closing marker included.

        None outside an image, and inside one until its layout is known.
        """
        if self.open_image is None or self.open_image.layout is None:
            return None
        return self.open_image.num_codes_left + 1

    @property
    def tokenizer(self) -> str | None:
        """The tokenizer of the open image; None outside an image."""
        return self.open_image.ranges.name if self.open_image else None

    @property
    def image(self) -> ImageSoFar | None:
        """The open image; None outside an image, and inside one until its layout is known."""
        if self.open_image is None or self.open_image.layout is None:
            return None
        ranges, ids = self.open_image.ranges, self.open_image.ids
        complete = ids[: len(ids) - len(ids) % ranges.num_codebooks]
        codes = self.grammar.vocabulary.codes(ranges.name, complete)
        return ImageSoFar(ranges.name, Codes(codes, self.open_image.layout))

    @property
    def is_finished(self) -> bool:
        return self.phase == "finished"

    def advance(self, id_: int) -> GrammarState:
        """Return the state after one more id; `GrammarError` if it may not come next."""
        id_ = operator.index(id_)
        if not any(id_ in ids for ids in self.allowed):
            raise GrammarError(
                f"found {self.grammar.describe(id_)}, expected {self._expected()}",
                position=self.position,
            )
        if self.open_image is None:
            return self._advance_outside(id_)
        image = self.open_image
        if image.layout is None:
            value = self.grammar.vocabulary.shape_value(image.ranges.name, id_)
            return self._with_image(image.with_side(value), 1)
        if image.num_codes_left:
            return self._with_image(replace(image, ids=(*image.ids, id_)), 1)
        return self._with_image(None, 1)

    def advance_all(self, ids: Ids) -> GrammarState:
        """Return the state after several more ids."""
        values = _integers(ids)
        state, index = self, 0
        while index < len(values):
            image = state.open_image
            legal = (
                _legal_codes(image, values[index : index + image.num_codes_left]) if image else []
            )
            if image and legal:
                longer = replace(image, ids=(*image.ids, *legal))
                state = state._with_image(longer, len(legal))
                index += len(legal)
            else:
                state = state.advance(values[index])
                index += 1
        return state

    def _with_image(self, image: _OpenImage | None, num_read: int) -> GrammarState:
        return replace(self, open_image=image, position=self.position + num_read)

    def _advance_outside(self, id_: int) -> GrammarState:
        grammar, after = self.grammar, self.position + 1
        role: Role | None = grammar.role_of(id_)
        if role:
            return GrammarState(grammar, "turn", after, role)
        if id_ == grammar.vocabulary.bos_id:
            return GrammarState(grammar, "opened", after)
        if id_ == grammar.vocabulary.eos_id:
            return GrammarState(grammar, "finished", after)
        if id_ == grammar.vocabulary.end_id:
            return GrammarState(grammar, "between turns", after)
        phase: Phase = "turn" if self.phase == "turn" else "free"
        return GrammarState(grammar, phase, after, self.role, grammar.opened_by(id_))

    def _expected(self) -> str:
        token = self.grammar.vocabulary.token
        return (
            ", ".join(
                token(ids[0]) if len(ids) == 1 else f"{token(ids[0])} to {token(ids[-1])}"
                for ids in self.allowed
            )
            or "nothing more: the document has ended"
        )

    def error_at_end(self) -> GrammarError:
        """Return the error of ids that stop here, too early."""
        inside = f"an image of {self.tokenizer!r}" if self.tokenizer else self.phase
        return GrammarError(
            f"the ids stop too early ({inside}), expected {self._expected()}",
            position=self.position,
        )


class Grammar:
    """The language of documents over a vocabulary."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        v = vocabulary
        self._opened_by = {ranges.marker_id: _opened(ranges) for ranges in v.ranges}
        self._roles: dict[int, Role] = {v.user_id: "user", v.assistant_id: "assistant"}
        self._marks: dict[int, MarkKind] = {
            v.bos_id: "bos",
            v.eos_id: "eos",
            v.user_id: "user",
            v.assistant_id: "assistant",
            v.end_id: "end",
        }
        content = [range(v.num_text_ids), *map(_one, self._opened_by)]
        turns = [_one(v.user_id), _one(v.assistant_id)]
        self._allowed: dict[Phase, tuple[range, ...]] = {
            "start": _merged([_one(v.bos_id)]),
            "opened": _merged([*content, *turns]),
            "free": _merged([*content, _one(v.eos_id)]),
            "between turns": _merged([*turns, _one(v.eos_id)]),
            "turn": _merged([*content, _one(v.null_id), _one(v.end_id)]),
            "finished": (),
        }

    def image_header(self, name: str, layout: Layout) -> list[int]:
        """Return the ids that open an image of this layout: marker and shape."""
        ranges = self.vocabulary.tokenizer(name)
        sides = ranges.shape_values(layout)
        return [ranges.marker_id, *(self.vocabulary.shape_id(name, side) for side in sides)]

    def spell_image(self, name: str, codes: Codes) -> list[int]:
        """Return the ids of a whole image."""
        header = self.image_header(name, codes.layout)
        if not codes.is_complete:
            raise VocabularyError(
                f"an image of {name!r} has {len(codes.array)} of the "
                f"{codes.layout.num_positions} positions of {codes.layout}; only whole images "
                "are spelled"
            )
        ids: list[int] = self.vocabulary.code_ids(name, codes.array).tolist()
        return [*header, *ids, self.vocabulary.end_image_id]

    def code_ranges(self, name: str, layout: Layout) -> list[range]:
        """Return the ids of an image's codes: step `t` is allowed the range `t % length`."""
        ranges = self.vocabulary.tokenizer(name)
        ranges.shape_values(layout)
        return list(ranges.code_ids)

    def state(self) -> GrammarState:
        """Return the state before the first id of a document."""
        return GrammarState(self)

    def state_after(self, ids: Ids) -> GrammarState:
        """Return the state after the first ids of a document."""
        return self.state().advance_all(ids)

    def parse(self, ids: Ids) -> list[Span]:
        """Return the spans of a whole document; `GrammarError` at the first id that is wrong."""
        values = _integers(ids)
        state = self.state()
        spans: list[Span] = []
        while state.position < len(values):
            start = state.position
            first = values[start]
            state = state.advance(first)
            if first in self._opened_by:
                state, codes = self._read_image(state, values)
                spans.append(ImageSpan(start, state.position, codes.name, codes.codes))
            elif first in self._marks:
                spans.append(MarkSpan(start, state.position, self._marks[first]))
            else:
                stop = start + 1
                while stop < len(values) and self._is_text(values[stop]):
                    stop += 1
                state = state.advance_all(values[start + 1 : stop])
                spans.append(TextSpan(start, stop, tuple(values[start:stop])))
        if not state.is_finished:
            raise state.error_at_end()
        return spans

    def allowed_in(self, phase: Phase) -> tuple[range, ...]:
        """Return the ids that may come next outside an image."""
        return self._allowed[phase]

    def role_of(self, id_: int) -> Role | None:
        """Return whose turn an id opens, if it does."""
        return self._roles.get(id_)

    def opened_by(self, id_: int) -> _OpenImage | None:
        """Return the image that an id opens, if it does."""
        return self._opened_by.get(id_)

    def describe(self, id_: int) -> str:
        """Return an id and its printable name, for messages."""
        if 0 <= id_ < self.vocabulary.size:
            return f"{self.vocabulary.token(id_)} (id {id_})"
        return f"id {id_}, which is outside the vocabulary of {self.vocabulary.size} ids"

    def _is_text(self, id_: int) -> bool:
        return 0 <= id_ < self.vocabulary.num_text_ids or id_ == self.vocabulary.null_id

    def _read_image(
        self, state: GrammarState, values: list[int]
    ) -> tuple[GrammarState, ImageSoFar]:
        while state.remaining is None and state.position < len(values):
            state = state.advance(values[state.position])
        num_codes = (state.remaining or 1) - 1
        state = state.advance_all(values[state.position : state.position + num_codes])
        image = state.image
        if image is None or state.position == len(values):
            raise state.error_at_end()
        return state.advance(values[state.position]), image


def _opened(ranges: TokenizerRanges) -> _OpenImage:
    axes = ranges.varying_axes
    sides = [tuple(layout.shape[axis] for axis in axes) for layout in ranges.layouts]
    return _OpenImage(ranges, tuple(zip(sides, ranges.layouts, strict=True)))


def _legal_codes(image: _OpenImage, ids: list[int]) -> list[int]:
    """Return the first of these ids, as many as are codes that may come next in the image."""
    ranges = islice(cycle(image.ranges.code_ids), len(image.ids) % len(image.ranges.code_ids), None)
    return [
        id_ for id_, _ in takewhile(lambda pair: pair[0] in pair[1], zip(ids, ranges, strict=False))
    ]


def _one(id_: int) -> range:
    return range(id_, id_ + 1)


def _merged(ranges: Iterable[range]) -> tuple[range, ...]:
    """Return ranges in ascending order, neighbours joined."""
    merged: list[range] = []
    for ids in sorted(ranges, key=lambda ids: ids.start):
        if merged and merged[-1].stop == ids.start:
            merged[-1] = range(merged[-1].start, ids.stop)
        else:
            merged.append(ids)
    return tuple(merged)


def _integers(ids: Ids) -> list[int]:
    values = ids.tolist() if isinstance(ids, np.ndarray) else ids
    return [operator.index(id_) for id_ in values]
