"""The one place of all offsets: ranges, inverses, growth, JSON and fingerprints."""

from __future__ import annotations

import hashlib
import json
import pickle
from typing import Any

import numpy as np
import pytest

from mmgen.errors import VocabularyError
from mmgen.visual_tokenizer import Grid, Layout, Ordered, Scales, Segments
from mmgen.vocabulary import Vocabulary

LAYOUTS: dict[str, list[Layout]] = {
    "one": [Grid(2, 2)],
    "grid": [Grid(2, 2), Grid(2, 3), Grid(4, 1)],
    "video": [Grid(2, 2, 1), Grid(2, 2, 5)],
    "ordered": [Ordered(4), Ordered(1), Ordered(9)],
    "scales": [Scales(((1, 1), (2, 2))), Scales(((1, 1), (2, 3)))],
    "segments": [
        Segments((Ordered(2), Grid(2, 2), Scales(((1, 1), (3, 3))))),
        Segments((Ordered(2), Grid(2, 3), Scales(((1, 1), (3, 3))))),
    ],
}


def text_only() -> Vocabulary:
    return Vocabulary.build(num_text_ids=10, text_fingerprint="text")


def full() -> Vocabulary:
    vocabulary = text_only()
    for name, layouts in LAYOUTS.items():
        vocabulary = vocabulary.extend(name, codebook_sizes=(5, 3), layouts=layouts)
    return vocabulary


def test_specials_follow_text_in_a_fixed_order() -> None:
    vocabulary = text_only()
    names = ["pad", "bos", "eos", "user", "assistant", "end", "null", "end_image"]
    assert [getattr(vocabulary, f"{name}_id") for name in names] == list(range(10, 18))
    assert list(vocabulary.special_tokens.items()) == [
        ("<|pad|>", 10),
        ("<|bos|>", 11),
        ("<|eos|>", 12),
        ("<|user|>", 13),
        ("<|assistant|>", 14),
        ("<|end|>", 15),
        ("<|null|>", 16),
        ("<|/image|>", 17),
    ]
    assert (vocabulary.num_used_ids, vocabulary.size) == (18, 64)


def test_a_tokenizer_is_a_marker_then_sides_then_codebooks() -> None:
    vocabulary = text_only().extend("one", codebook_sizes=[4], layouts=[Grid(2, 2)])
    vocabulary = vocabulary.extend("two", codebook_sizes=[40, 6], layouts=LAYOUTS["grid"])
    one, two = vocabulary.ranges
    assert (one.marker_id, one.shape_ids, one.code_ids) == (18, range(19, 19), (range(19, 23),))
    assert (two.marker_id, two.shape_ids) == (23, range(24, 28))
    assert two.code_ids == (range(28, 68), range(68, 74))
    assert (vocabulary.num_used_ids, vocabulary.size) == (74, 128)
    assert list(vocabulary.tokenizers) == ["one", "two"]
    assert vocabulary.tokenizers["two"] is vocabulary.tokenizer("two") is two


@pytest.mark.parametrize(
    ("name", "axes", "num_sides", "values"),
    [
        ("one", (), 0, ()),
        ("grid", (1, 2), 4, (2, 3)),
        ("video", (0,), 5, (5,)),
        ("ordered", (0,), 9, (1,)),
        ("scales", (1,), 3, (3,)),
        ("segments", (3,), 3, (3,)),
    ],
)
def test_only_sides_that_vary_are_spelled(
    name: str, axes: tuple[int, ...], num_sides: int, values: tuple[int, ...]
) -> None:
    ranges = full().tokenizer(name)
    layout = ranges.layouts[min(1, len(ranges.layouts) - 1)]
    assert ranges.varying_axes == axes
    assert len(ranges.shape_ids) == num_sides
    assert ranges.shape_values(layout) == values
    assert ranges.num_image_ids(layout) == 2 + len(values) + 2 * layout.num_positions


def test_the_size_is_a_multiple_of_64_and_never_smaller_than_what_is_used() -> None:
    for num_text_ids in range(50, 60):
        vocabulary = Vocabulary.build(num_text_ids=num_text_ids, text_fingerprint="text")
        assert vocabulary.size == (64 if num_text_ids <= 56 else 128)


def test_every_id_has_a_token_of_its_own() -> None:
    vocabulary = full()
    tokens = [vocabulary.token(id_) for id_ in range(vocabulary.size)]
    assert len(set(tokens)) == vocabulary.size
    assert tokens[3] == "<text 3>"
    grid = vocabulary.tokenizer("grid")
    assert tokens[grid.marker_id] == "<|grid|>"
    assert tokens[grid.shape_ids[2]] == "<|grid.shape:3|>"
    assert tokens[grid.code_ids[1][2]] == "<|grid:1:2|>"
    assert tokens[-1] == f"<unused {vocabulary.size - 1}>"


def test_special_tokens_are_all_ids_but_text_and_codes() -> None:
    vocabulary = full()
    codes = {id_ for ranges in vocabulary.ranges for ids in ranges.code_ids for id_ in ids}
    expected = set(range(10, vocabulary.num_used_ids)) - codes
    assert set(vocabulary.special_tokens.values()) == expected
    for token, id_ in vocabulary.special_tokens.items():
        assert vocabulary.token(id_) == token


@pytest.mark.parametrize("id_", [-1, 10_000])
def test_an_id_outside_has_no_token(id_: int) -> None:
    with pytest.raises(VocabularyError, match=f"id {id_} is outside the vocabulary of"):
        full().token(id_)


def test_codes_and_ids_are_inverse() -> None:
    vocabulary = full()
    for name in vocabulary.tokenizers:
        every = np.stack(np.meshgrid(np.arange(5), np.arange(3)), axis=-1).reshape(15, 2)
        ids = vocabulary.code_ids(name, every.astype(np.uint8))
        assert ids.dtype == np.int64
        first, second = vocabulary.tokenizer(name).code_ids
        assert set(ids.tolist()) == {*first, *second}
        assert ids[:2].tolist() == [first[every[0, 0]], second[every[0, 1]]]
        assert np.array_equal(vocabulary.codes(name, ids), every)


def test_no_codes_are_no_ids() -> None:
    vocabulary = full()
    assert vocabulary.codes("one", []).shape == (0, 2)
    assert vocabulary.code_ids("one", np.zeros((0, 2), dtype=np.int64)).shape == (0,)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        ([[0, 3]], "code 3 at position 0 is outside codebook 1 of 'grid', which has 3 codes"),
        ([[0, 0], [-1, 0]], "code -1 at position 1 is outside codebook 0"),
        ([[0]], r"integer array \[positions, 2\], got int64 \[1, 1\]"),
        ([0, 1], r"got int64 \[2\]"),
        ([[0.0, 1.0]], "got float64"),
    ],
)
def test_wrong_codes_are_refused(array: list[Any], message: str) -> None:
    with pytest.raises(VocabularyError, match=message):
        full().code_ids("grid", np.array(array))


def test_wrong_ids_of_codes_are_refused() -> None:
    vocabulary = full()
    first, second = vocabulary.tokenizer("grid").code_ids
    for ids in ([second[0], first[0]], [first[0], second[-1] + 1], [0, second[0]]):
        with pytest.raises(VocabularyError, match="is no code of codebook"):
            vocabulary.codes("grid", ids)
    for wrong in ([first[0]], [[first[0], second[0]]], [0.5, 1.5]):
        with pytest.raises(VocabularyError, match=r"integer array \[positions \* 2\]"):
            vocabulary.codes("grid", wrong)


def test_sides_and_ids_are_inverse() -> None:
    vocabulary = full()
    for value in range(1, 5):
        id_ = vocabulary.shape_id("grid", value)
        assert vocabulary.shape_value("grid", id_) == value
    assert id_ == vocabulary.tokenizer("grid").shape_ids[-1]


@pytest.mark.parametrize("value", [0, 5])
def test_a_side_without_id_is_refused(value: int) -> None:
    with pytest.raises(VocabularyError, match=f"no shape id for {value}; it has ids for 1 to 4"):
        full().shape_id("grid", value)


def test_an_id_that_is_no_side_is_refused() -> None:
    with pytest.raises(VocabularyError, match="id 3 is no shape id of tokenizer 'grid'"):
        full().shape_value("grid", 3)


def test_extending_keeps_every_old_id() -> None:
    old = full()
    new = old.extend("late", codebook_sizes=[100], layouts=[Ordered(8)])
    assert new.ranges[:-1] == old.ranges
    assert new.ranges[-1].marker_id == old.num_used_ids
    for id_ in range(old.num_used_ids):
        assert new.token(id_) == old.token(id_)
    assert "late" not in old.tokenizers


@pytest.mark.parametrize("name", ["", "a b", "fsq:0", "x.shape", "user", "/image", "null"])
def test_a_name_that_could_be_misread_is_refused(name: str) -> None:
    with pytest.raises(VocabularyError, match="cannot name a visual tokenizer"):
        text_only().extend(name, codebook_sizes=[4], layouts=[Ordered(1)])


def test_a_name_is_taken_once() -> None:
    with pytest.raises(VocabularyError, match="'one' is in the vocabulary already; it has 'one'"):
        full().extend("one", codebook_sizes=[4], layouts=[Ordered(1)])


@pytest.mark.parametrize(
    ("codebook_sizes", "layouts", "message"),
    [
        ([], [Ordered(1)], "codebook_sizes"),
        ([1], [Ordered(1)], "codebook_sizes"),
        ([4], [], "at least one layout"),
        ([4], [Ordered(1), Ordered(1)], "same shape"),
        ([4], [Ordered(1), Grid(1, 1)], "one class"),
    ],
)
def test_what_cannot_be_spelled_is_refused(
    codebook_sizes: list[int], layouts: list[Layout], message: str
) -> None:
    with pytest.raises(VocabularyError, match=f"'x' cannot be spelled: .*{message}"):
        text_only().extend("x", codebook_sizes=codebook_sizes, layouts=layouts)


def test_a_vocabulary_needs_text() -> None:
    with pytest.raises(VocabularyError, match="num_text_ids must be 1 or more, got 0"):
        Vocabulary.build(num_text_ids=0, text_fingerprint="text")


def test_an_unknown_tokenizer_is_refused_with_what_exists() -> None:
    with pytest.raises(VocabularyError, match="no tokenizer 'fsq' in the vocabulary; it has none"):
        text_only().tokenizer("fsq")
    with pytest.raises(VocabularyError, match="it has 'one', 'grid', 'video'"):
        full().tokenizer("fsq")


def test_an_unknown_layout_is_refused_with_what_exists() -> None:
    with pytest.raises(VocabularyError, match=r"has no layout Grid.*it has Grid\(rows=2, .*\)$"):
        full().tokenizer("one").shape_values(Grid(9, 9))
    many = text_only().extend("x", codebook_sizes=[4], layouts=[Ordered(n) for n in range(1, 20)])
    with pytest.raises(VocabularyError, match=r"Ordered\(length=8\), \.\.\.$"):
        many.tokenizer("x").shape_values(Ordered(20))


def test_json_gives_an_equal_vocabulary() -> None:
    for vocabulary in (text_only(), full()):
        again = Vocabulary.from_json(vocabulary.to_json())
        assert again == vocabulary
        assert hash(again) == hash(vocabulary)
        assert again.fingerprint == vocabulary.fingerprint


def test_a_vocabulary_can_be_sent_to_another_process() -> None:
    vocabulary = full()
    assert vocabulary.fingerprint
    assert pickle.loads(pickle.dumps(vocabulary)) == vocabulary


def test_every_difference_changes_the_fingerprint() -> None:
    def made(
        num_text_ids: int = 10,
        text: str = "text",
        name: str = "a",
        sizes: tuple[int, ...] = (8, 4),
        layouts: tuple[Layout, ...] = (Grid(2, 2), Grid(3, 3)),
    ) -> Vocabulary:
        vocabulary = Vocabulary.build(num_text_ids=num_text_ids, text_fingerprint=text)
        return vocabulary.extend(name, codebook_sizes=sizes, layouts=layouts)

    vocabularies = [
        text_only(),
        made(),
        made(num_text_ids=11),
        made(text="other"),
        made(name="b"),
        made(sizes=(4, 8)),
        made(sizes=(8,)),
        made(layouts=(Grid(2, 2),)),
        made(layouts=(Grid(3, 3), Grid(2, 2))),
        made(layouts=(Grid(2, 2, 2), Grid(3, 3, 2))),
        made(layouts=(Ordered(2), Ordered(3))),
        made().extend("b", codebook_sizes=[4], layouts=[Ordered(1)]),
    ]
    assert len({vocabulary.fingerprint for vocabulary in vocabularies}) == len(vocabularies)
    assert made().fingerprint == made().fingerprint


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, dict):
        return [leaf for key in value for leaf in leaves(value[key], (*path, key))]
    if isinstance(value, list):
        return [leaf for key, item in enumerate(value) for leaf in leaves(item, (*path, key))]
    return [path]


def changed(value: Any, path: tuple[Any, ...]) -> Any:
    copy = json.loads(json.dumps(value))
    place = copy
    for key in path[:-1]:
        place = place[key]
    old = place[path[-1]]
    place[path[-1]] = old + 1 if isinstance(old, int) else f"{old}x"
    return copy


def signed(data: dict[str, Any]) -> str:
    """Give changed data a fingerprint that fits, as a careful forger would."""
    payload = {key: value for key, value in data.items() if key != "fingerprint"}
    text = json.dumps(payload, sort_keys=True, separators=(",", ":"))
    return json.dumps({**payload, "fingerprint": hashlib.sha256(text.encode()).hexdigest()})


def test_json_with_any_value_changed_is_refused_with_both_fingerprints() -> None:
    vocabulary = full()
    data = json.loads(vocabulary.to_json())
    for path in leaves(data):
        with pytest.raises(VocabularyError, match="was changed: its fingerprint is") as caught:
            Vocabulary.from_json(json.dumps(changed(data, path)))
        stored = vocabulary.fingerprint
        assert (stored in str(caught.value)) or path == ("fingerprint",)


def test_ids_that_do_not_follow_from_the_tokenizers_are_refused_even_when_signed() -> None:
    data = json.loads(full().to_json())
    derived = {"marker_id", "shape_ids", "code_ids", "special_ids", "size", "format"}
    paths = [path for path in leaves(data) if derived & set(path)]
    assert len(paths) > 50
    for path in paths:
        with pytest.raises(VocabularyError, match="not written by this version"):
            Vocabulary.from_json(signed(changed(data, path)))
    with pytest.raises(VocabularyError, match="not written by this version"):
        Vocabulary.from_json(signed({**data, "extra": 1}))


@pytest.mark.parametrize(
    "layout", [{"spiral": 3}, {"ordered": 2.0}, {"ordered": 0}, {"grid": [2, 2]}, {}, 5, []]
)
def test_a_layout_that_is_none_is_refused_even_when_signed(layout: Any) -> None:
    data = json.loads(full().to_json())
    data["tokenizers"][0]["layouts"] = [layout]
    with pytest.raises(VocabularyError, match="no vocabulary in JSON"):
        Vocabulary.from_json(signed(data))


def test_segments_do_not_nest() -> None:
    data = json.loads(full().to_json())
    part = {"segments": [{"ordered": 1}]}
    data["tokenizers"][0]["layouts"] = [{"segments": [part, {"ordered": 4}]}]
    with pytest.raises(VocabularyError, match="not written by this version"):
        Vocabulary.from_json(signed(data))


@pytest.mark.parametrize("text", ["", "[]", "{}", "3", '{"fingerprint": "x"', "null"])
def test_what_is_no_vocabulary_is_refused(text: str) -> None:
    with pytest.raises(VocabularyError, match="no vocabulary in JSON"):
        Vocabulary.from_json(text)


@pytest.mark.parametrize("key", ["num_text_ids", "tokenizers"])
def test_a_missing_or_strange_part_is_refused_even_when_signed(key: str) -> None:
    data = json.loads(full().to_json())
    for value in ("many", None, 1.5, [1]):
        with pytest.raises(VocabularyError):
            Vocabulary.from_json(signed({**data, key: value}))
    del data[key]
    with pytest.raises(VocabularyError, match=key):
        Vocabulary.from_json(signed(data))
