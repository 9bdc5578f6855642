"""What a target competes with: the ids of its group, and what the grammar allows in its place."""

from __future__ import annotations

from itertools import chain

import torch
from hypothesis import given, settings

from mmgen.grammar import GrammarState
from mmgen.train.alternatives import Alternatives
from mmgen.visual_tokenizer import Grid, Ordered
from mmgen.vocabulary import Vocabulary
from tests.written_documents import Example, documents

examples = settings(max_examples=40, deadline=None, derandomize=True, database=None)
WORDS = Vocabulary.build(num_text_ids=20, text_fingerprint="")
PLAIN = WORDS.extend("plain", codebook_sizes=(16,), layouts=(Grid(2, 2),))
SEVERAL = PLAIN.extend("several", codebook_sizes=(9, 5), layouts=(Ordered(3), Ordered(1)))


def members(alternatives: Alternatives) -> list[list[int]]:
    """Return the ids of each group."""
    every = torch.arange(len(alternatives.group_of))
    return [every[ids].tolist() for ids in alternatives.groups]


def test_words_marks_and_the_marker_are_one_group_and_codes_another() -> None:
    alternatives = Alternatives.of(PLAIN)
    assert alternatives.groups == (slice(0, 29), slice(29, 45))
    assert alternatives.sizes == (29, 16)


def test_a_vocabulary_without_pictures_is_one_group() -> None:
    alternatives = Alternatives.of(WORDS)
    assert alternatives.groups == (slice(0, 28),) and alternatives.sizes == (28,)


def test_a_marker_between_codes_is_with_the_words() -> None:
    alternatives = Alternatives.of(SEVERAL)
    assert members(alternatives) == [
        [*range(29), 45],
        [*range(29, 45)],
        [*range(46, 49)],
        [*range(49, 58)],
        [*range(58, 63)],
    ]
    assert isinstance(alternatives.groups[0], torch.Tensor)
    assert all(isinstance(ids, slice) for ids in alternatives.groups[1:])


def test_every_used_id_is_in_one_group_at_its_place() -> None:
    for vocabulary in (WORDS, PLAIN, SEVERAL):
        alternatives = Alternatives.of(vocabulary)
        assert len(alternatives.group_of) == len(alternatives.place_of) == vocabulary.size
        groups = members(alternatives)
        assert tuple(map(len, groups)) == alternatives.sizes
        for number, ids in enumerate(groups):
            for place, id_ in enumerate(ids):
                assert alternatives.group_of[id_] == number
                assert alternatives.place_of[id_] == place
        assert sorted(chain(*groups)) == [*range(vocabulary.num_used_ids)]
        assert (alternatives.group_of[vocabulary.num_used_ids :] == -1).all()


@given(documents())
@examples
def test_what_the_grammar_allows_in_one_place_is_of_one_group(example: Example) -> None:
    alternatives = Alternatives.of(example.vocabulary)
    state: GrammarState = example.grammar.state()
    for id_ in example.ids:
        allowed = [other for ids in state.allowed for other in ids]
        assert id_ in allowed
        assert len(set(alternatives.group_of[allowed].tolist())) == 1
        if state.image is not None and state.open_image and state.open_image.num_codes_left:
            # Codes leave nothing out: where one may stand, all of its codebook may.
            assert len(allowed) == alternatives.sizes[int(alternatives.group_of[id_])]
        state = state.advance(id_)
