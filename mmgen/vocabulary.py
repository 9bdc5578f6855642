"""Which token id stands for what: text ids, special ids, then the ranges of each visual tokenizer.

Every other module asks here; no other module adds an offset to a code or takes one away. A
vocabulary is a value: adding a tokenizer gives a longer one in which all earlier ids still mean
the same, so that a trained model can be extended.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
from einops import rearrange

from mmgen.errors import VocabularyError
from mmgen.visual_tokenizer import (
    FixedPixels,
    Grid,
    Layout,
    Ordered,
    Scales,
    Segments,
    VisualTokenizerSpec,
)

__all__ = ["TokenizerRanges", "Vocabulary", "layout_from_json", "layout_to_json"]

FORMAT = 1
ROW_MULTIPLE = 64
SPECIAL_NAMES = ("pad", "bos", "eos", "user", "assistant", "end", "null", "/image")
NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerRanges:
    """The ids of one visual tokenizer."""

    name: str
    codebook_sizes: tuple[int, ...]
    layouts: tuple[Layout, ...]
    """Layouts that documents may use, the default first; the plugin may know more."""
    marker_id: int
    """The id that opens an image of this tokenizer."""
    shape_ids: range
    """Ids of the values 1, 2, ... of a side; empty where all images have one layout."""
    code_ids: tuple[range, ...]
    """One range per codebook."""

    @property
    def num_codebooks(self) -> int:
        return len(self.codebook_sizes)

    @property
    def varying_axes(self) -> tuple[int, ...]:
        """The axes of `layout.shape` in which the layouts differ, and which are thus spelled."""
        return _varying_axes(self.layouts)

    def shape_values(self, layout: Layout) -> tuple[int, ...]:
        """Return the sides by which this layout is told from the others, in spelling order."""
        if layout not in self.layouts:
            known = ", ".join(map(str, self.layouts[:8])) + ", ..." * (len(self.layouts) > 8)
            raise VocabularyError(
                f"tokenizer {self.name!r} has no layout {layout} in this vocabulary; it has {known}"
            )
        return tuple(layout.shape[axis] for axis in self.varying_axes)

    def num_image_ids(self, layout: Layout) -> int:
        """Return the number of ids of a whole image, markers included."""
        return 2 + len(self.shape_values(layout)) + layout.num_positions * self.num_codebooks


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """Ids of text, specials and codes; immutable. Make one with `build` and `extend`."""

    num_text_ids: int
    """Text ids are `[0, num_text_ids)`."""
    text_fingerprint: str
    """Fingerprint of the text tokenizer whose ids these are."""
    ranges: tuple[TokenizerRanges, ...] = ()
    """The visual tokenizers in order of addition."""

    @classmethod
    def build(cls, *, num_text_ids: int, text_fingerprint: str) -> Vocabulary:
        """Return a vocabulary of text and special ids."""
        if num_text_ids < 1:
            raise VocabularyError(f"num_text_ids must be 1 or more, got {num_text_ids}")
        return cls(num_text_ids=num_text_ids, text_fingerprint=text_fingerprint)

    def extend(
        self, name: str, *, codebook_sizes: Sequence[int], layouts: Sequence[Layout]
    ) -> Vocabulary:
        """Return a vocabulary with one more visual tokenizer, in which every old id is kept."""
        if not NAME_PATTERN.fullmatch(name) or name in SPECIAL_NAMES:
            raise VocabularyError(
                f"{name!r} cannot name a visual tokenizer: take letters, digits, '-' and '_', "
                f"but none of {', '.join(SPECIAL_NAMES)}"
            )
        if name in self.tokenizers:
            raise VocabularyError(
                f"tokenizer {name!r} is in the vocabulary already; it has {self._known()}"
            )
        try:
            VisualTokenizerSpec(
                codebook_sizes=tuple(codebook_sizes),
                layouts=tuple(layouts),
                pixels=FixedPixels(1, 1),
            )
        except ValueError as error:
            raise VocabularyError(f"tokenizer {name!r} cannot be spelled: {error}") from error
        marker_id = self.num_used_ids
        axes = _varying_axes(layouts)
        longest = max((layout.shape[axis] for layout in layouts for axis in axes), default=0)
        shape_ids = range(marker_id + 1, marker_id + 1 + longest)
        next_id = shape_ids.stop
        code_ids = []
        for codebook_size in codebook_sizes:
            code_ids.append(range(next_id, next_id + codebook_size))
            next_id += codebook_size
        added = TokenizerRanges(
            name=name,
            codebook_sizes=tuple(codebook_sizes),
            layouts=tuple(layouts),
            marker_id=marker_id,
            shape_ids=shape_ids,
            code_ids=tuple(code_ids),
        )
        return replace(self, ranges=(*self.ranges, added))

    @property
    def pad_id(self) -> int:
        return self.num_text_ids

    @property
    def bos_id(self) -> int:
        return self.num_text_ids + 1

    @property
    def eos_id(self) -> int:
        return self.num_text_ids + 2

    @property
    def user_id(self) -> int:
        return self.num_text_ids + 3

    @property
    def assistant_id(self) -> int:
        return self.num_text_ids + 4

    @property
    def end_id(self) -> int:
        """The id that closes a turn."""
        return self.num_text_ids + 5

    @property
    def null_id(self) -> int:
        """The id that stands in for each id of a dropped condition."""
        return self.num_text_ids + 6

    @property
    def end_image_id(self) -> int:
        return self.num_text_ids + 7

    @property
    def num_used_ids(self) -> int:
        """One more than the largest id that means something."""
        return self.ranges[-1].code_ids[-1].stop if self.ranges else self._special_ids().stop

    @property
    def size(self) -> int:
        """Number of rows of an embedding, `num_used_ids` rounded up to a multiple of 64."""
        return -(-self.num_used_ids // ROW_MULTIPLE) * ROW_MULTIPLE

    @property
    def tokenizers(self) -> Mapping[str, TokenizerRanges]:
        """The visual tokenizers by name, in order of addition."""
        return MappingProxyType({ranges.name: ranges for ranges in self.ranges})

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 in hex of all that this vocabulary says."""
        return _digest(self._payload())

    def tokenizer(self, name: str) -> TokenizerRanges:
        """Return the ids of one visual tokenizer."""
        for ranges in self.ranges:
            if ranges.name == name:
                return ranges
        raise VocabularyError(f"no tokenizer {name!r} in the vocabulary; it has {self._known()}")

    def code_ids(self, name: str, array: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """Return the ids of codes, the codebooks of a position adjacent.

        Args:
            array: integer codes `[positions, codebooks]`.
        """
        ranges = self.tokenizer(name)
        codes = np.asarray(array)
        if codes.shape[1:] != (ranges.num_codebooks,) or codes.dtype.kind not in "iu":
            raise VocabularyError(
                f"codes of {name!r} are an integer array [positions, {ranges.num_codebooks}], "
                f"got {codes.dtype} {list(codes.shape)}"
            )
        codes = codes.astype(np.int64)
        for position, codebook in _outside(codes, ranges):
            raise VocabularyError(
                f"code {codes[position, codebook]} at position {position} is outside codebook "
                f"{codebook} of {name!r}, which has {ranges.codebook_sizes[codebook]} codes"
            )
        return rearrange(codes + _starts(ranges), "positions codebooks -> (positions codebooks)")

    def codes(self, name: str, ids: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Return the codes `[positions, codebooks]` of ids; the inverse of `code_ids`.

        Args:
            ids: integer ids `[positions * codebooks]`.
        """
        ranges = self.tokenizer(name)
        flat = np.asarray(ids)
        if flat.size == 0:
            flat = flat.astype(np.int64)
        if flat.ndim != 1 or flat.dtype.kind not in "iu" or len(flat) % ranges.num_codebooks:
            raise VocabularyError(
                f"ids of codes of {name!r} are an integer array [positions * "
                f"{ranges.num_codebooks}], got {flat.dtype} {list(flat.shape)}"
            )
        table = rearrange(
            flat.astype(np.int64),
            "(positions codebooks) -> positions codebooks",
            codebooks=ranges.num_codebooks,
        )
        codes: npt.NDArray[np.int64] = table - _starts(ranges)
        for position, codebook in _outside(codes, ranges):
            allowed = ranges.code_ids[codebook]
            raise VocabularyError(
                f"id {table[position, codebook]} is no code of codebook {codebook} of {name!r}, "
                f"whose ids are {allowed.start} to {allowed.stop - 1}"
            )
        return codes

    def shape_id(self, name: str, value: int) -> int:
        """Return the id of a side of this length."""
        ranges = self.tokenizer(name)
        if not 1 <= value <= len(ranges.shape_ids):
            raise VocabularyError(
                f"tokenizer {name!r} has no shape id for {value}; "
                f"it has ids for 1 to {len(ranges.shape_ids)}"
            )
        return ranges.shape_ids[value - 1]

    def shape_value(self, name: str, id_: int) -> int:
        """Return the length of side that an id stands for; the inverse of `shape_id`."""
        ranges = self.tokenizer(name)
        if id_ not in ranges.shape_ids:
            raise VocabularyError(f"id {id_} is no shape id of tokenizer {name!r}")
        return ranges.shape_ids.index(id_) + 1

    def token(self, id_: int) -> str:
        """Return a printable name of an id."""
        if not 0 <= id_ < self.size:
            raise VocabularyError(f"id {id_} is outside the vocabulary of {self.size} ids")
        specials = self._special_ids()
        if id_ < self.num_text_ids:
            return f"<text {id_}>"
        if id_ >= self.num_used_ids:
            return f"<unused {id_}>"
        if id_ in specials:
            return f"<|{SPECIAL_NAMES[specials.index(id_)]}|>"
        ranges = next(item for item in self.ranges if id_ < item.code_ids[-1].stop)
        if id_ == ranges.marker_id:
            return f"<|{ranges.name}|>"
        if id_ in ranges.shape_ids:
            return f"<|{ranges.name}.shape:{ranges.shape_ids.index(id_) + 1}|>"
        codebook = next(index for index, ids in enumerate(ranges.code_ids) if id_ in ids)
        return f"<|{ranges.name}:{codebook}:{ranges.code_ids[codebook].index(id_)}|>"

    @property
    def special_tokens(self) -> Mapping[str, int]:
        """The printable tokens of all ids that are neither text nor code, with their ids."""
        ids = list(self._special_ids())
        for ranges in self.ranges:
            ids += [ranges.marker_id, *ranges.shape_ids]
        return MappingProxyType({self.token(id_): id_ for id_ in ids})

    def to_json(self) -> str:
        """Return this vocabulary as JSON, ranges and fingerprint included."""
        return json.dumps({**self._payload(), "fingerprint": self.fingerprint}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Vocabulary:
        """Return the vocabulary that `to_json` wrote; anything else is refused."""
        try:
            data = json.loads(text)
            stored = data.pop("fingerprint")
            found = _digest(data)
            if stored != found:
                raise VocabularyError(
                    f"the vocabulary was changed: its fingerprint is {found}, but {stored} is "
                    "stored with it; take the vocabulary that belongs to the model"
                )
            vocabulary = cls.build(
                num_text_ids=data["num_text_ids"], text_fingerprint=data["text_fingerprint"]
            )
            for item in data["tokenizers"]:
                vocabulary = vocabulary.extend(
                    item["name"],
                    codebook_sizes=item["codebook_sizes"],
                    layouts=[layout_from_json(layout) for layout in item["layouts"]],
                )
            if vocabulary.fingerprint != stored:
                raise VocabularyError(
                    f"the stored vocabulary {stored} was not written by this version of mmgen, "
                    f"which would give its tokenizers other ids ({vocabulary.fingerprint})"
                )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise VocabularyError(f"this is no vocabulary in JSON: {error!r}") from error
        return vocabulary

    def _payload(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "num_text_ids": self.num_text_ids,
            "text_fingerprint": self.text_fingerprint,
            "special_ids": {self.token(id_): id_ for id_ in self._special_ids()},
            "tokenizers": [
                {
                    "name": ranges.name,
                    "codebook_sizes": list(ranges.codebook_sizes),
                    "layouts": [layout_to_json(layout) for layout in ranges.layouts],
                    "marker_id": ranges.marker_id,
                    "shape_ids": [ranges.shape_ids.start, ranges.shape_ids.stop],
                    "code_ids": [[ids.start, ids.stop] for ids in ranges.code_ids],
                }
                for ranges in self.ranges
            ],
            "size": self.size,
        }

    def _special_ids(self) -> range:
        return range(self.num_text_ids, self.num_text_ids + len(SPECIAL_NAMES))

    def _known(self) -> str:
        return ", ".join(repr(ranges.name) for ranges in self.ranges) or "none"


def _varying_axes(layouts: Sequence[Layout]) -> tuple[int, ...]:
    sides = zip(*(layout.shape for layout in layouts), strict=True)
    return tuple(axis for axis, values in enumerate(sides) if len(set(values)) > 1)


def _starts(ranges: TokenizerRanges) -> npt.NDArray[np.int64]:
    return np.array([ids.start for ids in ranges.code_ids], dtype=np.int64)


def _outside(codes: npt.NDArray[np.int64], ranges: TokenizerRanges) -> list[list[int]]:
    """Return `[position, codebook]` of each code that its codebook does not have."""
    wrong: list[list[int]] = np.argwhere(
        (codes < 0) | (codes >= np.array(ranges.codebook_sizes))
    ).tolist()
    return wrong


def _digest(payload: Mapping[str, Any]) -> str:
    canonical = json.dumps(payload, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def layout_to_json(layout: Layout) -> dict[str, Any]:
    """Return a layout as JSON data."""
    match layout:
        case Grid():
            return {"grid": [layout.frames, layout.rows, layout.columns]}
        case Ordered():
            return {"ordered": layout.length}
        case Scales():
            return {"scales": [list(size) for size in layout.sizes]}
    return {"segments": [layout_to_json(part) for part in layout.parts]}


def layout_from_json(data: Mapping[str, Any]) -> Layout:
    """Return the layout that JSON data describes; other data are a `ValueError`."""
    match data:
        case {"grid": [int(frames), int(rows), int(columns)]}:
            return Grid(rows, columns, frames)
        case {"ordered": int(length)}:
            return Ordered(length)
        case {"scales": [*sizes]}:
            return Scales(tuple((int(rows), int(columns)) for rows, columns in sizes))
        case {"segments": [*items]}:
            parts = [layout_from_json(item) for item in items]
            return Segments(tuple(part for part in parts if not isinstance(part, Segments)))
    raise ValueError(f"unknown layout {data}; expected grid, ordered, scales or segments")
