"""Sessions that guide by the user's pictures and words apart: what they ask, refuse and tell."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from mmgen.condition import null_condition, null_words
from mmgen.document import Document, Image, Segment, Text, Turn
from mmgen.errors import EngineError, SettingsError
from mmgen.generate.events import ImageFinished
from mmgen.generate.requests import ChatRequest
from mmgen.generate.session import Session, open_session


def shown(colour: str) -> Image:
    return Image(picture=Pillow.new("RGB", (32, 32), colour), tokenizer="palette")


RED = shown("red")


def asking(*segments: Segment) -> Document:
    return Document(turns=(Turn("user", segments),))


def edit(**changes: Any) -> ChatRequest:
    settings: dict[str, Any] = {
        "document": asking(RED, Text("draw a fox")),
        "seed": 3,
        "guidance_scale": 3.0,
        "image_guidance_scale": 1.5,
        "max_text_ids": 0,
        "must_draw": True,
        "size": (32, 32),
    }
    return ChatRequest(**settings | changes)


def drawn(session: Session, request: ChatRequest) -> ImageFinished:
    (image,) = [item for item in session.run([request]) if isinstance(item, ImageFinished)]
    return image


def test_pictures_are_kept_where_words_are_blanked(session: Session) -> None:
    span = session.begin(0, edit()).span
    vocabulary = session.codec.vocabulary
    assert span.partial_ids == tuple(null_words(span.prompt_ids, vocabulary))
    assert span.unguided_ids == tuple(null_condition(span.prompt_ids, vocabulary))
    assert len(set(span.streams)) == 3
    assert (span.guidance_scale, span.partial_scale) == (3.0, 1.5)
    together = session.begin(0, edit(image_guidance_scale=None)).span
    assert together == replace(span, partial_ids=None, partial_scale=1.0)


def test_the_answer_says_what_was_applied(session: Session) -> None:
    found = {
        scale: drawn(session, edit(image_guidance_scale=scale))
        for scale in (None, 0.0, 1.0, 1.5, 3.0)
    }
    assert all(image.guidance_scale == 3.0 for image in found.values())
    assert {scale: image.image_guidance_scale for scale, image in found.items()} == {
        scale: scale for scale in found
    }
    codes = {scale: image.codes.array.tobytes() for scale, image in found.items()}
    # The same scale for both is what one scale for all of it is.
    assert codes[3.0] == codes[None]
    assert len(set(codes.values())) >= 3


def test_guidance_by_pictures_alone(session: Session) -> None:
    """With 1 for the words, pictures may still count more; with 1 for both, nothing is guided."""
    alone = session.begin(0, edit(guidance_scale=1.0)).span
    assert len(alone.streams) == 3
    off = drawn(session, edit(guidance_scale=1.0, image_guidance_scale=1.0))
    assert (off.guidance_scale, off.image_guidance_scale) == (1.0, 1.0)
    plain = drawn(session, edit(guidance_scale=1.0, image_guidance_scale=None))
    assert np.array_equal(off.codes.array, plain.codes.array)
    assert (plain.guidance_scale, plain.image_guidance_scale) == (1.0, None)


def test_every_picture_of_a_dialogue_is_guided_so(session: Session) -> None:
    turns = (
        *asking(RED, Text("what is this?")).turns,
        Turn("assistant", (Text("a fox"), shown("blue"))),
        Turn("user", (Text("draw a fox"),)),
    )
    document = Document(turns=turns)
    span = session.begin(0, edit(document=document)).span
    vocabulary = session.codec.vocabulary
    ranges = vocabulary.tokenizer("palette").code_ids[0]
    pictures = [
        sum(id_ in ranges for id_ in stream) // 16 for stream in (*span.streams, span.prompt_ids)
    ]
    assert pictures == [2, 2, 1, 2], "what the assistant drew is no part of the condition"


@pytest.mark.parametrize(
    "document",
    [
        asking(Text("draw a fox")),
        Document(
            turns=(*asking(Text("a")).turns, Turn("assistant", (RED,)), *asking(Text("b")).turns)
        ),
        Document(segments=(RED, Text("draw a fox"))),
    ],
)
def test_it_needs_a_picture_that_a_user_shows(document: Document) -> None:
    with pytest.raises(SettingsError, match="no user shows any here; leave it out, or show one"):
        edit(document=document)


@pytest.mark.parametrize("scale", [-1.0, math.inf, math.nan])
def test_a_bad_scale_is_refused(scale: float) -> None:
    with pytest.raises(SettingsError, match=f"image guidance must be 0 or more, got {scale}"):
        edit(image_guidance_scale=scale)


def test_an_engine_of_two_rows_says_what_it_lacks(model_path: Path) -> None:
    narrow = open_session(model_path, num_rows=2)
    with pytest.raises(EngineError, match="takes 3 rows, but the engine has 2"):
        narrow.submit(edit())
    assert narrow.num_unfinished == 0
    assert drawn(narrow, edit(image_guidance_scale=None)).guidance_scale == 3.0


NEGATIVE: dict[str, Any] = {
    "negative_document": asking(RED, Text("draw a blue circle")),
    "negative_prompt": "a blue circle",
}


def test_words_may_lead_away_from_other_words(session: Session) -> None:
    span = session.begin(0, edit(**NEGATIVE)).span
    plain = session.begin(0, edit()).span
    other = session.begin(0, edit(document=NEGATIVE["negative_document"])).span
    assert span == replace(plain, partial_ids=other.prompt_ids)
    together = session.begin(0, edit(**NEGATIVE | {"image_guidance_scale": None})).span
    assert together.streams == (plain.prompt_ids, other.prompt_ids)
    away = drawn(session, edit(**NEGATIVE))
    assert away.negative_prompt == "a blue circle"
    assert (away.codes.array != drawn(session, edit()).codes.array).any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_guidance_scale": None, "guidance_scale": 1.0}, "which is off at 1"),
        ({"image_guidance_scale": 3.0}, "guided by the same scale, 3; change one of the two"),
        ({"image_guidance_scale": 1.0, "guidance_scale": 1.0}, "guided by the same scale, 1"),
    ],
)
def test_words_that_nothing_leads_away_from_are_refused(
    session: Session, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        session.begin(0, edit(**NEGATIVE | changes))
