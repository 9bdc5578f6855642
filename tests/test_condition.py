from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image as Pillow

from mmgen.checkpoint import open_checkpoint
from mmgen.condition import null_condition, null_words
from mmgen.document import Document, DocumentCodec, Image, Segment, Text, Turn
from mmgen.grammar import ImageSpan, MarkSpan


@pytest.fixture(scope="module")
def codec(tiny_checkpoint: Path) -> DocumentCodec:
    return open_checkpoint(tiny_checkpoint).codec()


def picture(colour: str) -> Image:
    return Image(picture=Pillow.new("RGB", (32, 32), colour), tokenizer="palette")


RED, BLUE, GREEN = map(picture, ("red", "blue", "green"))


@pytest.mark.parametrize(
    "turns",
    [
        [("user", RED, Text("a fox"))],
        [("user", Text("first"), RED, Text("then"), BLUE, Text("a fox"))],
        [("user", RED)],
        [("user", Text("a fox")), ("assistant", GREEN)],
        [
            ("user", RED, Text("what?")),
            ("assistant", Text("a fox"), GREEN),
            ("user", Text("more"), BLUE),
        ],
    ],
)
def test_blanking_words_keeps_pictures_and_what_the_assistant_says(
    codec: DocumentCodec, turns: list[tuple[str, *tuple[Segment, ...]]]
) -> None:
    document = Document(turns=tuple(Turn(role, tuple(said)) for role, *said in turns))  # type: ignore[arg-type]
    encoded = codec.encode(document)
    null_id = codec.vocabulary.null_id
    blanked = null_words(encoded.ids, codec.vocabulary)
    for span, role in zip(encoded.spans, encoded.roles, strict=True):
        before = encoded.ids[span.start : span.stop].tolist()
        is_word = role == "user" and not isinstance(span, MarkSpan | ImageSpan)
        assert blanked[span.start : span.stop] == ([null_id] * len(before) if is_word else before)
    # What is left can be parsed, and blanking the rest gives what blanking all at once gives.
    kept = [span.codes for span in codec.grammar.parse(blanked) if isinstance(span, ImageSpan)]
    assert kept == [span.codes for span in encoded.spans if isinstance(span, ImageSpan)]
    whole = null_condition(encoded.ids, codec.vocabulary)
    assert null_condition(blanked, codec.vocabulary) == whole
    assert len(blanked) == len(whole) == len(encoded.ids)


def test_without_a_picture_of_the_user_words_are_the_whole_condition(codec: DocumentCodec) -> None:
    turns = (Turn("user", (Text("a fox"),)), Turn("assistant", (GREEN,)))
    prompt = codec.encode_prompt(Document(turns=(*turns, Turn("user", (Text("bluer"),)))))
    vocabulary = codec.vocabulary
    assert null_words(prompt, vocabulary) == null_condition(prompt, vocabulary)


def test_an_unfinished_turn_is_blanked_too(codec: DocumentCodec) -> None:
    v = codec.vocabulary
    marker = v.tokenizer("palette").marker_id
    ids = [v.bos_id, v.assistant_id, 1, v.end_id, v.user_id, 1, marker, v.num_text_ids - 1]
    assert null_words(ids, v) == [*ids[:5], v.null_id, marker, v.null_id]
