"""The automaton over all kinds of layouts: what is legal goes round, what is not is refused."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmgen.errors import GrammarError, VocabularyError
from mmgen.grammar import Grammar, GrammarState, ImageSpan, MarkSpan, Span, TextSpan
from mmgen.visual_tokenizer import Codes, Grid, Layout, Ordered, Scales, Segments
from mmgen.vocabulary import Vocabulary

SIDES = st.integers(1, 3)
examples = settings(max_examples=40, deadline=None, derandomize=True, database=None)


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


grids = st.builds(Grid, SIDES, SIDES, SIDES)
ordered = st.builds(Ordered, st.integers(1, 6))
scales = st.lists(st.tuples(SIDES, SIDES), min_size=1, max_size=3).map(
    lambda sizes: Scales(tuple(sizes))
)


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


def contains(state: GrammarState, id_: int) -> bool:
    return any(id_ in ids for ids in state.allowed)


def rebuilt(grammar: Grammar, spans: list[Span]) -> list[int]:
    """Write the ids of spans."""
    v = grammar.vocabulary
    marks = {
        "bos": v.bos_id,
        "eos": v.eos_id,
        "user": v.user_id,
        "assistant": v.assistant_id,
        "end": v.end_id,
    }
    ids: list[int] = []
    for span in spans:
        assert span.start == len(ids)
        match span:
            case MarkSpan():
                ids.append(marks[span.kind])
            case TextSpan():
                ids += span.ids
            case ImageSpan():
                ids += grammar.spell_image(span.name, span.codes)
        assert span.stop == len(ids)
    return ids


@given(documents())
@examples
def test_ids_are_parsed_to_the_spans_they_were_written_from(example: Example) -> None:
    spans = example.grammar.parse(example.ids)
    assert spans == example.spans
    assert rebuilt(example.grammar, spans) == example.ids
    assert example.grammar.parse(np.array(example.ids, dtype=np.int32)) == spans


@given(documents())
@examples
def test_every_prefix_allows_the_id_that_follows(example: Example) -> None:
    state = example.grammar.state()
    for position, id_ in enumerate(example.ids):
        assert state.position == position
        assert not state.is_finished
        assert state.allowed
        assert contains(state, id_)
        stops = [ids.stop for ids in state.allowed]
        starts = [ids.start for ids in state.allowed]
        assert all(start < stop for start, stop in zip(starts, stops, strict=True))
        assert all(stop < start for stop, start in zip(stops, starts[1:], strict=False))
        assert starts[0] >= 0
        assert stops[-1] <= example.vocabulary.num_used_ids
        state = state.advance(id_)
    assert state.is_finished
    assert state.allowed == ()
    assert state == example.grammar.state_after(example.ids)


@given(documents())
@examples
def test_the_ids_next_to_the_allowed_ones_are_refused_where_they_stand(example: Example) -> None:
    state = example.grammar.state()
    for position, right in enumerate(example.ids):
        edges = {ids.start - 1 for ids in state.allowed} | {ids.stop for ids in state.allowed}
        for wrong in sorted({-1, example.vocabulary.size, *edges}):
            assert not contains(state, wrong)
            with pytest.raises(GrammarError, match=f"^position {position}: found ") as caught:
                state.advance(wrong)
            assert caught.value.position == position
        state = state.advance(right)
    with pytest.raises(GrammarError, match="expected nothing more"):
        state.advance(example.vocabulary.eos_id)


@given(documents(small_vocabulary()), st.data())
@settings(examples, max_examples=25)
def test_every_id_that_is_not_allowed_is_refused_by_all_that_read_ids(
    example: Example, data: st.DataObject
) -> None:
    grammar, ids = example.grammar, example.ids
    position = data.draw(st.integers(0, len(ids)))
    state = grammar.state_after(ids[:position])
    for id_ in range(-1, example.vocabulary.size + 1):
        if contains(state, id_):
            assert state.advance(id_).position == position + 1
            continue
        for read in (
            lambda: state.advance(id_),  # noqa: B023
            lambda: grammar.state_after([*ids[:position], id_, *ids[position + 1 :]]),  # noqa: B023
            lambda: grammar.parse([*ids[:position], id_, *ids[position + 1 :]]),  # noqa: B023
        ):
            with pytest.raises(GrammarError) as caught:
                read()
            assert caught.value.position == position


@given(documents())
@examples
def test_ids_cut_short_are_refused_at_their_end(example: Example) -> None:
    for length in range(len(example.ids)):
        with pytest.raises(GrammarError, match="the ids stop too early") as caught:
            example.grammar.parse(example.ids[:length])
        assert caught.value.position == length


@given(documents())
@examples
def test_remaining_is_exact_and_codes_so_far_are_a_prefix(example: Example) -> None:
    images = [span for span in example.spans if isinstance(span, ImageSpan)]
    state = example.grammar.state()
    for id_ in example.ids:
        inside = [span for span in images if span.start < state.position < span.stop]
        assert (state.tokenizer is None) == (not inside)
        if not inside:
            assert state.remaining is None
            assert state.image is None
        for span in inside:
            header = example.grammar.image_header(span.name, span.codes.layout)
            num_codes = state.position - span.start - len(header)
            assert state.tokenizer == span.name
            if num_codes < 0:
                assert state.remaining is None
                assert state.image is None
                continue
            assert state.remaining == span.stop - state.position
            assert state.image is not None
            assert state.image.name == span.name
            assert state.image.layout == span.codes.layout
            complete = num_codes // span.codes.array.shape[1]
            assert np.array_equal(state.image.codes.array, span.codes.array[:complete])
        state = state.advance(id_)


@given(documents())
@examples
def test_the_role_is_that_of_the_open_turn(example: Example) -> None:
    state, role = example.grammar.state(), None
    for id_ in example.ids:
        assert state.role == role
        state = state.advance(id_)
        if id_ in (example.vocabulary.user_id, example.vocabulary.assistant_id):
            role = "user" if id_ == example.vocabulary.user_id else "assistant"
        elif id_ == example.vocabulary.end_id:
            role = None


@given(documents(), st.data())
@examples
def test_reading_in_any_pieces_is_reading_at_once(example: Example, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(example.ids)), max_size=4)))
    state = example.grammar.state()
    one_by_one = example.grammar.state()
    for start, stop in zip([0, *cuts], [*cuts, len(example.ids)], strict=True):
        state = state.advance_all(np.array(example.ids[start:stop], dtype=np.int64))
        for id_ in example.ids[start:stop]:
            one_by_one = one_by_one.advance(np.int32(id_))  # type: ignore[arg-type]
        assert state == one_by_one


@given(vocabularies(), st.data())
@examples
def test_whoever_keeps_to_what_is_allowed_writes_a_document(
    vocabulary: Vocabulary, data: st.DataObject
) -> None:
    grammar = Grammar(vocabulary)
    state = grammar.state()
    ids: list[int] = []
    closing = [vocabulary.eos_id, vocabulary.end_id, vocabulary.end_image_id]
    num_free = data.draw(st.integers(0, 30))
    while not state.is_finished:
        choices = [id_ for part in state.allowed for id_ in part]
        if len(ids) >= num_free:
            choices = [id_ for id_ in closing if id_ in choices][:1] or choices[:1]
        ids.append(data.draw(st.sampled_from(choices)))
        state = state.advance(ids[-1])
    assert rebuilt(grammar, grammar.parse(ids)) == ids


@pytest.mark.parametrize("name", list(small_vocabulary().tokenizers))
def test_code_ranges_are_what_the_automaton_allows(name: str) -> None:
    grammar = Grammar(small_vocabulary())
    for layout in grammar.vocabulary.tokenizer(name).layouts:
        header = grammar.image_header(name, layout)
        state = grammar.state_after([grammar.vocabulary.bos_id, *header])
        ranges = grammar.code_ranges(name, layout)
        assert state.remaining == layout.num_positions * len(ranges) + 1
        for step in range(state.remaining - 1):
            assert state.allowed == (ranges[step % len(ranges)],)
            state = state.advance(state.allowed[0][-1])
        assert state.allowed == (
            range(grammar.vocabulary.end_image_id, grammar.vocabulary.end_image_id + 1),
        )


def test_sides_are_allowed_only_in_pairs_that_are_layouts() -> None:
    vocabulary = small_vocabulary()
    sized = vocabulary.tokenizer("sized")
    state = Grammar(vocabulary).state_after([vocabulary.bos_id, sized.marker_id])
    one, two = sized.shape_ids
    assert state.allowed == (range(one, two + 1),)
    assert state.advance(one).allowed == (range(one, two + 1),)
    assert state.advance(two).allowed == (range(one, two),)


def test_what_is_expected_is_named() -> None:
    vocabulary = small_vocabulary()
    grammar = Grammar(vocabulary)
    with pytest.raises(
        GrammarError, match=r"^position 0: found <text 1> \(id 1\), expected <\|bos"
    ):
        grammar.parse([1])
    with pytest.raises(GrammarError, match=r"found id 9999, which is outside the vocabulary of 64"):
        grammar.state().advance(9999)
    plain = vocabulary.tokenizer("plain")
    with pytest.raises(GrammarError, match=r"an image of 'plain'.*<\|plain:0:0\|> to <\|plain:0:2"):
        grammar.parse([vocabulary.bos_id, plain.marker_id])
    with pytest.raises(GrammarError, match=r"too early \(turn\), expected <text 0> to <text 2>, "):
        grammar.parse([vocabulary.bos_id, vocabulary.user_id])
    with pytest.raises(GrammarError, match=f"found id {10**30}, which is outside"):
        grammar.parse([vocabulary.bos_id, plain.marker_id, 10**30])


def test_padding_is_no_part_of_a_document() -> None:
    vocabulary = small_vocabulary()
    ids = [vocabulary.bos_id, 0, vocabulary.pad_id, vocabulary.eos_id]
    with pytest.raises(GrammarError, match=r"found <\|pad\|>") as caught:
        Grammar(vocabulary).parse(ids)
    assert caught.value.position == 2


def test_a_dropped_condition_stands_only_in_turns() -> None:
    v = small_vocabulary()
    turn = [v.bos_id, v.user_id, v.null_id, v.null_id, v.end_id, v.eos_id]
    assert Grammar(v).parse(turn)[2] == TextSpan(2, 4, (v.null_id, v.null_id))
    with pytest.raises(GrammarError):
        Grammar(v).parse([v.bos_id, 0, v.null_id, v.eos_id])


def test_only_integers_are_ids() -> None:
    grammar = Grammar(small_vocabulary())
    wrong: Any = float(grammar.vocabulary.bos_id)
    with pytest.raises(TypeError):
        grammar.state().advance(wrong)
    with pytest.raises(TypeError):
        grammar.parse([wrong])


def test_an_image_is_spelled_whole_or_not_at_all() -> None:
    grammar = Grammar(small_vocabulary())
    codes = Codes(np.array([[1, 2]]), Grid(1, 2))
    with pytest.raises(VocabularyError, match="has 1 of the 2 positions of Grid"):
        grammar.spell_image("sized", codes)
    with pytest.raises(VocabularyError, match="code 7 at position 0 is outside codebook 1"):
        grammar.spell_image("sized", Codes(np.array([[1, 7]]), Grid(1, 1)))
    for ask in (grammar.image_header, grammar.code_ranges):
        with pytest.raises(VocabularyError, match="has no layout"):
            ask("sized", Grid(3, 3))
        with pytest.raises(VocabularyError, match="no tokenizer 'other'"):
            ask("other", Grid(3, 3))


def test_states_can_be_kept_compared_and_sent() -> None:
    grammar = Grammar(small_vocabulary())
    before = grammar.state()
    after = before.advance(grammar.vocabulary.bos_id)
    assert before == grammar.state()
    assert before != after
    assert len({before, grammar.state(), after}) == 2
    assert pickle.loads(pickle.dumps(after)).allowed == after.allowed


def test_a_tokenizer_of_many_lengths_is_read_quickly() -> None:
    vocabulary = Vocabulary.build(num_text_ids=3, text_fingerprint="any text").extend(
        "long", codebook_sizes=[64], layouts=[Ordered(length) for length in range(1, 1025)]
    )
    grammar = Grammar(vocabulary)
    codes = Codes(np.arange(1000)[:, np.newaxis] % 64, Ordered(1000))
    ids = [vocabulary.bos_id, *grammar.spell_image("long", codes) * 3, vocabulary.eos_id]
    spans = grammar.parse(ids)
    assert [span.codes for span in spans if isinstance(span, ImageSpan)] == [codes] * 3
