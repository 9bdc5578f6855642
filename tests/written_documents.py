"""Documents that hypothesis writes, as spans and as ids, over all kinds of layouts."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from hypothesis import strategies as st

from mmgen.grammar import Grammar, ImageSpan, MarkSpan, Span, TextSpan
from mmgen.visual_tokenizer import Codes, Grid, Layout, Ordered, Scales, Segments
from mmgen.vocabulary import Vocabulary

SIDES = st.integers(1, 3)
grids = st.builds(Grid, SIDES, SIDES, SIDES)
ordered = st.builds(Ordered, st.integers(1, 6))
scales = st.lists(st.tuples(SIDES, SIDES), min_size=1, max_size=3).map(
    lambda sizes: Scales(tuple(sizes))
)


@dataclass(frozen=True)
class Example:
    """A document's ids, with what a reader of the rules expects of them."""

    grammar: Grammar
    ids: list[int]
    spans: list[Span]

    @property
    def vocabulary(self) -> Vocabulary:
        return self.grammar.vocabulary


def distinct(layouts: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Layout]]:
    return st.lists(layouts, min_size=1, max_size=4, unique_by=lambda layout: layout.shape)


@st.composite
def segments(draw: st.DrawFn) -> list[Layout]:
    kinds = draw(st.lists(st.sampled_from([grids, ordered, scales]), min_size=1, max_size=3))
    return draw(distinct(st.tuples(*kinds).map(Segments)))


@st.composite
def vocabularies(draw: st.DrawFn) -> Vocabulary:
    vocabulary = Vocabulary.build(num_text_ids=draw(st.integers(1, 5)), text_fingerprint="any text")
    every = st.one_of(distinct(grids), distinct(ordered), distinct(scales), segments())
    for index in range(draw(st.integers(0, 3))):
        sizes = draw(st.lists(st.integers(2, 4), min_size=1, max_size=3))
        vocabulary = vocabulary.extend(f"v{index}", codebook_sizes=sizes, layouts=draw(every))
    return vocabulary


def spell(vocabulary: Vocabulary, name: str, codes: Codes) -> list[int]:
    """Spell an image by the rules alone, without the grammar."""
    ranges = vocabulary.tokenizer(name)
    layouts = ranges.layouts
    sides = [
        side
        for axis, side in enumerate(codes.layout.shape)
        if len({layout.shape[axis] for layout in layouts}) > 1
    ]
    ids = [ranges.marker_id, *(ranges.shape_ids.start + side - 1 for side in sides)]
    for position in codes.array.tolist():
        ids += [ranges.code_ids[book].start + code for book, code in enumerate(position)]
    return [*ids, vocabulary.end_image_id]


@st.composite
def contents(draw: st.DrawFn, vocabulary: Vocabulary, extra: list[int], least: int) -> list[Any]:
    """Draw a list of text ids, each an int, and images, each a pair of name and codes."""
    text = st.sampled_from([*range(vocabulary.num_text_ids), *extra])
    items = draw(
        st.lists(
            st.one_of(text, st.sampled_from(["image", *vocabulary.tokenizers])),
            min_size=least,
            max_size=6,
        )
    )
    content: list[Any] = []
    for item in items:
        if isinstance(item, int):
            content.append(item)
        elif item in vocabulary.tokenizers:
            ranges = vocabulary.tokenizer(item)
            layout = draw(st.sampled_from(ranges.layouts))
            random = np.random.default_rng(draw(st.integers(0, 99)))
            shape = (layout.num_positions, len(ranges.codebook_sizes))
            array = random.integers(0, ranges.codebook_sizes, shape)
            content.append((item, Codes(array, layout)))
    return content or [0] * least


def laid_out(
    vocabulary: Vocabulary, content: list[Any], start: int
) -> tuple[list[int], list[Span]]:
    ids: list[int] = []
    spans: list[Span] = []
    for is_text, run in groupby(content, key=lambda item: isinstance(item, int)):
        items = list(run)
        if is_text:
            stop = start + len(ids) + len(items)
            spans.append(TextSpan(start + len(ids), stop, tuple(items)))
            ids += items
            continue
        for name, codes in items:
            image = spell(vocabulary, name, codes)
            first = start + len(ids)
            spans.append(ImageSpan(first, first + len(image), name, codes))
            ids += image
    return ids, spans


@st.composite
def documents(draw: st.DrawFn, vocabulary: Vocabulary | None = None) -> Example:
    vocabulary = vocabulary or draw(vocabularies())
    ids = [vocabulary.bos_id]
    spans: list[Span] = [MarkSpan(0, 1, "bos")]

    def add(content: list[Any]) -> None:
        more, found = laid_out(vocabulary, content, len(ids))
        ids.extend(more)
        spans.extend(found)

    def mark(kind: Any, id_: int) -> None:
        spans.append(MarkSpan(len(ids), len(ids) + 1, kind))
        ids.append(id_)

    num_turns = draw(st.integers(0, 3))
    if num_turns == 0:
        add(draw(contents(vocabulary, [], 1)))
    for _ in range(num_turns):
        role = draw(st.sampled_from(["user", "assistant"]))
        mark(role, vocabulary.user_id if role == "user" else vocabulary.assistant_id)
        add(draw(contents(vocabulary, [vocabulary.null_id], 0)))
        mark("end", vocabulary.end_id)
    mark("eos", vocabulary.eos_id)
    return Example(Grammar(vocabulary), ids, spans)


def small_vocabulary() -> Vocabulary:
    """One tokenizer of each kind, in a vocabulary small enough to try every id."""
    vocabulary = Vocabulary.build(num_text_ids=3, text_fingerprint="any text")
    kinds: dict[str, tuple[list[int], list[Layout]]] = {
        "plain": ([3], [Grid(1, 2)]),
        "sized": ([2, 3], [Grid(1, 1), Grid(1, 2), Grid(2, 1)]),
        "ordered": ([2], [Ordered(3), Ordered(1)]),
        "scales": ([2], [Scales(((1, 1), (1, 2))), Scales(((1, 1), (1, 3)))]),
        "mixed": (
            [2, 2, 2],
            [Segments((Ordered(1), Grid(1, 1))), Segments((Ordered(1), Grid(1, 2)))],
        ),
    }
    for name, (sizes, layouts) in kinds.items():
        vocabulary = vocabulary.extend(name, codebook_sizes=sizes, layouts=layouts)
    return vocabulary
