"""Documents to ids and back, with pictures, codes, prompts and dropped conditions."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
from hypothesis import given, settings

from mmgen.condition import null_condition
from mmgen.document import Document, DocumentCodec, Image, Text, Turn
from mmgen.errors import (
    GrammarError,
    PictureError,
    PluginError,
    SettingsError,
    VocabularyError,
)
from mmgen.grammar import ImageSpan, MarkSpan, TextSpan
from mmgen.text_tokenizer import SentencePieceTokenizer, train_bpe
from mmgen.visual_tokenizer import (
    Codes,
    Grid,
    Layout,
    Ordered,
)
from mmgen.vocabulary import Vocabulary
from tests.grey_documents import (
    BPE,
    CODEC,
    DOCUMENTS,
    SIZES,
    VOCABULARY,
    Grey,
    Lengths,
    grey_codes,
    picture,
)

examples = settings(max_examples=50, deadline=None, derandomize=True, database=None)


@given(DOCUMENTS)
@examples
def test_documents_go_to_ids_and_back(document: Document) -> None:
    encoded = CODEC.encode(document)
    assert encoded.ids.dtype == np.int32
    assert CODEC.decode(encoded.ids) == document
    assert CODEC.encode(CODEC.decode(encoded.ids)).ids.tolist() == encoded.ids.tolist()


@given(DOCUMENTS)
@examples
def test_spans_are_those_that_a_parser_finds(document: Document) -> None:
    encoded = CODEC.encode(document)
    assert encoded.spans == CODEC.grammar.parse(encoded.ids)
    state = CODEC.grammar.state()
    for span, role in zip(encoded.spans, encoded.roles, strict=True):
        is_opening = isinstance(span, MarkSpan) and span.kind in ("user", "assistant")
        if not is_opening:
            assert role == state.role
        state = state.advance_all(encoded.ids[span.start : span.stop])
        if is_opening:
            assert role == state.role


@given(DOCUMENTS)
@examples
def test_prompts_are_beginnings_of_documents(document: Document) -> None:
    prompt = CODEC.encode_prompt(document)
    ids = CODEC.encode(document).ids.tolist()
    state = CODEC.grammar.state_after(prompt)
    if not document.turns:
        assert prompt == ids[:-1]
        assert state.role is None
    elif document.turns[-1].role == "user":
        assert prompt == [*ids[:-1], VOCABULARY.assistant_id]
        assert state.role == "assistant"
    else:
        assert prompt == ids[:-2]
        assert state.role == "assistant"


@given(DOCUMENTS)
@examples
def test_dropping_the_condition_replaces_id_for_id_what_users_say(document: Document) -> None:
    encoded = CODEC.encode(document)
    dropped = null_condition(encoded.ids, VOCABULARY)
    assert len(dropped) == len(encoded.ids)
    for span, role in zip(encoded.spans, encoded.roles, strict=True):
        before = encoded.ids[span.start : span.stop].tolist()
        after = dropped[span.start : span.stop]
        if role == "user" and not isinstance(span, MarkSpan):
            assert after == [VOCABULARY.null_id] * len(before)
        else:
            assert after == before
    CODEC.grammar.parse(dropped)
    prompt = CODEC.encode_prompt(document)
    assert null_condition(prompt, VOCABULARY)[: len(prompt) - 1] == dropped[: len(prompt) - 1]


def test_the_condition_of_an_unfinished_user_turn_is_dropped_too() -> None:
    v = VOCABULARY
    ids = [v.bos_id, v.assistant_id, 1, v.end_id, v.user_id, 1, 2]
    assert null_condition(ids, v) == [*ids[:5], v.null_id, v.null_id]


def test_a_document_is_spelled_as_the_rules_say() -> None:
    document = Document(
        turns=(
            Turn("user", (Text("draw"),)),
            Turn("assistant", (Image(codes=grey_codes(3), tokenizer="grey"),)),
        )
    )
    v, grey = VOCABULARY, VOCABULARY.tokenizer("grey")
    encoded = CODEC.encode(document)
    assert encoded.ids.tolist() == [
        v.bos_id,
        v.user_id,
        *BPE.encode("draw"),
        v.end_id,
        v.assistant_id,
        grey.marker_id,
        *[grey.shape_ids[1]] * 2,
        *[grey.code_ids[0][3]] * 4,
        v.end_image_id,
        v.end_id,
        v.eos_id,
    ]
    kinds = [type(span) for span in encoded.spans]
    assert kinds == [
        MarkSpan,
        MarkSpan,
        TextSpan,
        MarkSpan,
        MarkSpan,
        ImageSpan,
        MarkSpan,
        MarkSpan,
    ]
    user, assistant = "user", "assistant"
    assert encoded.roles == [None, user, user, user, assistant, assistant, assistant, None]


def test_texts_next_to_each_other_are_one() -> None:
    turn = Turn("user", (Text("re"), Text(""), Text("d ap"), Text("ple")))
    assert turn == Turn("user", (Text("red apple"),))
    image = Image(codes=grey_codes(1), tokenizer="grey")
    document = Document(segments=(Text(""), image, Text(""), image, Text("a"), Text("b")))
    assert document.segments == (image, image, Text("ab"))


@pytest.mark.parametrize(
    ("turns", "segments"),
    [((), ()), ((), (Text(""),)), ((Turn("user", ()),), (Text("a"),))],
)
def test_a_document_has_turns_or_segments(turns: Any, segments: Any) -> None:
    with pytest.raises(SettingsError, match="turns or segments: one of the two"):
        Document(turns=turns, segments=segments)


def test_a_turn_needs_a_known_role() -> None:
    role: Any = "system"
    with pytest.raises(SettingsError, match="'user' or 'assistant', got 'system'"):
        Turn(role, ())


def test_an_image_needs_a_picture_or_codes() -> None:
    with pytest.raises(SettingsError, match="needs a picture or codes"):
        Image(tokenizer="grey")


def test_text_that_names_special_tokens_stays_text() -> None:
    document = Document(turns=(Turn("user", (Text("<|end|><|user|><|grey|>"),)),))
    encoded = CODEC.encode(document)
    assert max(encoded.ids[2:-2]) < VOCABULARY.num_text_ids
    assert CODEC.decode(encoded.ids) == document


def test_pictures_of_a_document_are_encoded_together_and_in_order(tmp_path: Path) -> None:
    grey, lengths = Grey(), Lengths()
    codec = DocumentCodec(VOCABULARY, BPE, {"grey": grey, "lengths": lengths})
    file = tmp_path / "picture.png"
    picture(8, 8, 0.25).save(file)
    buffer = io.BytesIO()
    picture(16, 16, 1.0).save(buffer, format="PNG")
    document = Document(
        turns=(
            Turn(
                "user",
                (
                    Image(picture=file, tokenizer="grey"),
                    Image(picture=picture(9, 9), tokenizer="lengths"),
                    Image(codes=grey_codes(7), picture=file, tokenizer="grey"),
                ),
            ),
            Turn("assistant", (Text("and"), Image(picture=buffer.getvalue(), tokenizer="grey"))),
        )
    )
    decoded = codec.decode(codec.encode(document).ids)
    first, second, third = decoded.turns[0].segments
    assert first == Image(codes=grey_codes(4), tokenizer="grey")
    assert isinstance(second, Image)
    assert second.codes is not None
    assert second.codes.layout == Ordered(4)
    assert third == Image(codes=grey_codes(7), tokenizer="grey")
    last = Image(codes=grey_codes(15, Grid(4, 4)), tokenizer="grey")
    assert decoded.turns[1].segments == (Text("and"), last)
    assert grey.calls == [2]
    assert lengths.asked == [(4, None, ("",))]


@pytest.mark.parametrize(
    ("size", "layout"),
    [
        ((8, 8), Grid(2, 2)),
        ((1, 1), Grid(2, 2)),
        ((500, 500), Grid(4, 4)),
        ((12, 12), Grid(4, 4)),
        ((20, 30), Grid(2, 3)),
        ((30, 20), Grid(3, 2)),
        ((10, 300), Grid(2, 3)),
        ((9, 10), Grid(2, 2)),
    ],
)
def test_a_picture_gets_the_size_nearest_in_aspect_and_then_in_area(
    size: tuple[int, int], layout: Layout
) -> None:
    (codes,) = CODEC.encode_images([picture(*size)], "grey")
    assert codes.layout == layout


def test_a_size_may_be_asked_for() -> None:
    assert CODEC.sizes("grey") == {
        (8, 8): Grid(2, 2),
        (8, 12): Grid(2, 3),
        (12, 8): Grid(3, 2),
        (16, 16): Grid(4, 4),
    }
    assert CODEC.sizes("lengths") == {(8, 8): Ordered(4)}
    encoded = CODEC.encode_images([picture(8, 8), picture(99, 10)], "grey", size=(8, 12))
    assert [codes.layout for codes in encoded] == [Grid(2, 3)] * 2
    assert CODEC.encode_images([], "grey") == []
    with pytest.raises(SettingsError, match=r"no pictures of 9x9 .*choose one of 8x8, 8x12, 12x8"):
        CODEC.encode_images([picture(8, 8)], "grey", size=(9, 9))


def test_length_quality_and_captions_reach_the_tokenizer() -> None:
    lengths = Lengths()
    codec = DocumentCodec(VOCABULARY, BPE, {"lengths": lengths})
    codec.encode_images([picture(8, 8)], "lengths")
    codec.encode_images([picture(8, 8)], "lengths", length=2)
    codec.encode_images([picture(8, 8)], "lengths", quality=0.5, captions=["a"])
    assert lengths.asked == [(4, None, None), (2, None, None), (None, 0.5, ["a"])]


def test_a_tokenizer_that_reads_no_captions_is_given_none() -> None:
    codes = CODEC.encode_images([picture(8, 8)], "grey", captions=["a grey square"])
    assert codes == CODEC.encode_images([picture(8, 8)], "grey")
    lengths = Lengths()
    codec = DocumentCodec(VOCABULARY, BPE, {"lengths": lengths})
    codec.decode_image(Codes(np.zeros((2, 2), dtype=np.int64), Ordered(2)), "lengths", caption="a")
    assert lengths.asked == [["a"]]


def test_what_is_drawn_has_the_words_of_the_last_request_as_its_caption() -> None:
    shown, drawn, again = (Image(picture=picture(8, 8), tokenizer="lengths") for _ in range(3))
    document = Document(
        turns=(
            Turn("user", (Text("Draw "), shown, Text("in red"))),
            Turn("assistant", (Text("Like so: "), drawn)),
            Turn("user", (Text("now in blue"),)),
            Turn("assistant", (again,)),
        )
    )
    captions = ["", "Draw in red", "now in blue"]
    assert document.captioned_images == list(zip((shown, drawn, again), captions, strict=True))
    lengths = Lengths()
    codec = DocumentCodec(VOCABULARY, BPE, {"lengths": lengths})
    codec.encode(document)
    assert [list(said) for *_, said in lengths.asked] == [captions]
    for count, caption in ((1, "Draw in red"), (3, "now in blue")):
        prompt_ids = codec.encode_prompt(Document(turns=document.turns[:count]))
        assert codec.caption_after(prompt_ids) == caption
    assert codec.caption_after(codec.encode_prompt(Document(segments=(Text("a story"),)))) == ""
    assert Document(segments=(Text("see"), shown)).captioned_images == [(shown, "")]


def test_codes_that_the_vocabulary_cannot_spell_are_refused() -> None:
    codec = DocumentCodec(VOCABULARY, BPE, {"lengths": Lengths(default=3)})
    with pytest.raises(PluginError, match=r"'lengths' gave 3 positions of Ordered\(length=3\)"):
        codec.encode_images([picture(8, 8)], "lengths")
    with pytest.raises(VocabularyError, match="has no layout"):
        CODEC.encode(Document(segments=(Image(codes=grey_codes(1, Grid(9, 9)), tokenizer="grey"),)))


def test_a_picture_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PictureError):
        CODEC.encode_images([tmp_path / "missing.png"], "grey")


def test_pictures_need_their_tokenizer_and_codes_do_not() -> None:
    codec = DocumentCodec(VOCABULARY, BPE, {})
    document = Document(segments=(Image(codes=grey_codes(1), tokenizer="grey"),))
    assert codec.decode(codec.encode(document).ids) == document
    with pytest.raises(PluginError, match=r"'grey' is not loaded \(loaded: none\)"):
        codec.encode(Document(segments=(Image(picture=picture(8, 8), tokenizer="grey"),)))
    with pytest.raises(PluginError, match=r"'one' is not loaded \(loaded: 'grey', 'lengths'\)"):
        CODEC.sizes("one")
    with pytest.raises(VocabularyError, match="no tokenizer 'other'"):
        CODEC.sizes("other")


def test_parts_that_do_not_belong_together_are_refused() -> None:
    other = train_bpe(["something else"] * 3, num_ids=280)
    with pytest.raises(VocabularyError, match=BPE.fingerprint) as caught:
        DocumentCodec(VOCABULARY, other, {})
    assert other.fingerprint in str(caught.value)
    with pytest.raises(VocabularyError, match="no tokenizer 'other' in the vocabulary; it has"):
        DocumentCodec(VOCABULARY, BPE, {"other": Grey()})
    with pytest.raises(VocabularyError, match=r"codebooks of \[8\] codes, but .* for \[16\]"):
        DocumentCodec(VOCABULARY, BPE, {"grey": Grey(num_codes=8)})
    with pytest.raises(VocabularyError, match=r"has no layout Grid\(rows=2, columns=3"):
        DocumentCodec(VOCABULARY, BPE, {"grey": Grey(layouts=SIZES[:1])})


def test_ids_with_a_dropped_condition_are_no_document() -> None:
    ids = CODEC.encode(Document(turns=(Turn("user", (Text("draw"),)),))).ids.tolist()
    ids[3:3] = [VOCABULARY.null_id]
    with pytest.raises(GrammarError, match=r"<\|null\|>.*a condition was dropped") as caught:
        CODEC.decode(ids)
    assert caught.value.position == 3


def test_text_for_which_there_are_no_ids_is_nothing() -> None:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["draw a red apple"] * 3),
        model_writer=model,
        vocab_size=40,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    text_tokenizer = SentencePieceTokenizer(model.getvalue())
    vocabulary = Vocabulary.build(
        num_text_ids=text_tokenizer.num_ids, text_fingerprint=text_tokenizer.fingerprint
    )
    codec = DocumentCodec(vocabulary, text_tokenizer, {})
    encoded = codec.encode(Document(turns=(Turn("user", (Text("  "),)),)))
    assert len(encoded.ids) == 4
    assert codec.decode(encoded.ids) == Document(turns=(Turn("user", ()),))
    with pytest.raises(SettingsError, match="no ids for this document's text"):
        codec.encode(Document(segments=(Text("  "),)))


def test_ids_cut_short_are_no_document() -> None:
    ids = CODEC.encode(Document(turns=(Turn("user", (Text("draw"),)),))).ids
    with pytest.raises(GrammarError, match="stop too early"):
        CODEC.decode(ids[:-1])
