"""The automaton over all kinds of layouts: what is legal goes round, what is not is refused."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmgen.errors import GrammarError, VocabularyError
from mmgen.grammar import Grammar, GrammarState, ImageSpan, MarkSpan, Span, TextSpan
from mmgen.visual_tokenizer import Codes, Grid, Ordered
from mmgen.vocabulary import Vocabulary
from tests.written_documents import Example, documents, small_vocabulary, vocabularies

examples = settings(max_examples=40, deadline=None, derandomize=True, database=None)


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
