from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from PIL import Image as Pillow

from mmgen.checkpoint import open_checkpoint
from mmgen.condition import null_condition
from mmgen.document import Document, Image, Text, Turn
from mmgen.errors import EngineError, PictureError, PluginError, SettingsError, VocabularyError
from mmgen.generate.engine import AbstractEngine, SamplingParams, SpanRequest, Step
from mmgen.generate.events import (
    Event,
    ImageFinished,
    ImageProgress,
    ImageStarted,
    TextDelta,
    TurnFailed,
    TurnFinished,
)
from mmgen.generate.requests import CaptionRequest, ChatRequest, DrawRequest
from mmgen.generate.session import Session, open_session
from mmgen.grammar import ImageSpan
from mmgen.pictures import PictureSource
from mmgen.visual_tokenizer import Grid

Kind = TypeVar("Kind")

PALETTE_GREY = 251


def only(events: Iterable[Event], kind: type[Kind]) -> list[Kind]:
    return [event for event in events if isinstance(event, kind)]


def fox(width: int = 40, height: int = 40) -> Pillow.Image:
    picture = Pillow.new("RGB", (width, height), (200, 80, 20))
    picture.paste((255, 255, 255), (10, 10, 20, 20))
    return picture


class ScriptedEngine(AbstractEngine):
    """Gives the ids it is told, one per step, and remembers what it was asked."""

    context_length = 128
    num_unfinished = 0

    def __init__(self, spans: Sequence[Sequence[int]]) -> None:
        self.requests: list[SpanRequest] = []
        self.cancelled: list[int] = []
        self._spans = [list(ids) for ids in spans]

    def submit(self, request: SpanRequest) -> int:
        self.requests.append(request)
        return len(self.requests) - 1

    def step(self) -> list[Step]:
        index = len(self.requests) - 1
        request, ids = self.requests[index], self._spans[index]
        id_ = ids.pop(0)
        assert request.constraint.allows(id_)
        stops = id_ in request.stop_ids
        reason = "stop" if stops else "length" if not ids else None
        return [Step(index, (id_,), reason, request.guidance_scale)]  # type: ignore[arg-type]

    def cancel(self, request_index: int) -> None:
        self.cancelled.append(request_index)


def test_drawing_tells_its_course(session: Session) -> None:
    events = list(session.draw("a red fox", seed=7, size=(64, 64)))
    kinds = [type(event) for event in events]
    assert kinds == [ImageStarted, *[ImageProgress] * 64, ImageFinished, TurnFinished]
    started, image, end = events[0], only(events, ImageFinished)[0], only(events, TurnFinished)[0]
    assert started == ImageStarted(0, "palette", Grid(8, 8), 64)
    assert image.picture.shape == (64, 64, 3)
    assert image.codes.is_complete and image.codes.layout == Grid(8, 8)
    assert (image.seed, image.guidance_scale, image.num_ids) == (7, 2.0, 64)
    assert image.sampling == SamplingParams(top_k=100)
    assert 0 < image.seconds <= end.timings.total and 0 < end.timings.first_id
    assert (end.end, end.text) == ("image", "")
    assert end.turn == Turn("assistant", (Image(codes=image.codes, tokenizer="palette"),))
    assert (end.usage.text_ids, end.usage.image_ids) == (0, 64)


def test_progress_shows_what_is_there(session: Session) -> None:
    events = list(session.draw("a fox", seed=1))
    (image,) = only(events, ImageFinished)
    progress = only(events, ImageProgress)
    assert [event.num_done for event in progress] == list(range(1, 17))
    for event in progress[::5]:
        assert np.array_equal(event.codes.array, image.codes.array[: event.num_done])
    tokenizer = session.codec.visual_tokenizers["palette"]
    early = progress[3].preview()
    assert np.array_equal(early[:8], image.picture[:8])
    assert np.array_equal(tokenizer.encode([early])[0].array[4:], np.full((12, 1), PALETTE_GREY))


def test_samples_have_seeds_in_a_row_and_repeat_alone(session: Session) -> None:
    together = only(session.draw("a red fox", n=3, seed=5), ImageFinished)
    by_index = {image.index: image for image in together}
    assert [by_index[index].seed for index in range(3)] == [5, 6, 7]
    for index in range(3):
        (alone,) = only(session.draw("a red fox", seed=5 + index), ImageFinished)
        assert alone.codes == by_index[index].codes
        assert np.array_equal(alone.picture, by_index[index].picture)
    assert by_index[0].codes != by_index[1].codes


def test_a_drawing_is_asked_for_in_the_grammars_words(session: Session) -> None:
    vocabulary = session.codec.vocabulary
    turn = session.begin(0, DrawRequest(prompt="a fox", seed=3))
    span = turn.span
    text = session.codec.text_tokenizer.encode("draw a fox")
    header = session.codec.grammar.image_header("palette", Grid(4, 4))
    expected = [vocabulary.bos_id, vocabulary.user_id, *text, vocabulary.end_id]
    assert span.prompt_ids == (*expected, vocabulary.assistant_id, *header)
    assert span.unguided_ids == tuple(null_condition(span.prompt_ids, vocabulary))
    assert span.unguided_ids.count(vocabulary.null_id) == len(text)
    assert (span.guidance_scale, span.seed, span.max_ids) == (2.0, 3, 16)
    neutral = session.begin(0, DrawRequest(prompt="a fox", seed=3, guidance_scale=1.0)).span
    assert neutral.unguided_ids is None


def test_many_drawings_fail_apart(session: Session) -> None:
    requests = [
        DrawRequest(prompt="a fox", seed=1),
        DrawRequest(prompt=" ", seed=1),
        DrawRequest(prompt="0123456789" * 12, seed=1),
        DrawRequest(prompt="a fox", seed=1, size=(48, 64)),
        DrawRequest(prompt="a\x1b[31m fox", seed=1),
        DrawRequest(prompt="a fox", seed=1, tokenizer="fsq"),
        DrawRequest(prompt="a red fox", seed=1, size=(64, 64)),
    ]
    events = list(session.draw_many(requests))
    assert {image.index for image in only(events, ImageFinished)} == {0, 6}
    errors = {event.index: event.error for event in only(events, TurnFailed)}
    messages = {index: str(error) for index, error in errors.items()}
    assert "the prompt is empty" in messages[1]
    assert "tokens and the picture 16" in messages[2] and "of the 128 that fit" in messages[2]
    assert messages[3] == "no pictures of 64x48 pixels (width x height); choose one of 32x32, 64x64"
    assert "control character '\\x1b' at character 2" in messages[4]
    assert isinstance(errors[5], VocabularyError)


def test_drawing_alone_refuses_at_once(session: Session) -> None:
    with pytest.raises(SettingsError, match="the prompt is empty"):
        session.draw("")
    with pytest.raises(SettingsError, match="number of pictures must be 1 or more, got 0"):
        session.draw("a fox", n=0)


def test_more_requests_than_rows(model_path: Path) -> None:
    narrow = open_session(model_path, parts="decoder", num_rows=4)
    requests = [DrawRequest(prompt=f"fox {seed}", seed=seed) for seed in range(7)]
    images = {image.index: image for image in only(narrow.draw_many(requests), ImageFinished)}
    wide = open_session(model_path, parts="decoder")
    for image in only(wide.draw_many(requests[::-1]), ImageFinished):
        assert images[6 - image.index].codes == image.codes


def test_many_failures_do_not_hide_what_follows(session: Session, tmp_path: Path) -> None:
    requests = [CaptionRequest(picture=tmp_path / "none.png")] * 130
    events = list(session.run([*requests, DrawRequest(prompt="a fox", seed=1)]))
    assert len(only(events, TurnFailed)) == 130
    assert [event.index for event in only(events, ImageFinished)] == [130]


def test_an_endless_row_of_requests_is_served_as_it_goes(session: Session) -> None:
    events = session.run(DrawRequest(prompt="a fox", seed=seed) for seed in count())
    finished = (event for event in events if isinstance(event, TurnFinished))
    assert [next(finished).index for _ in range(3)] == [0, 1, 2]
    events.close()  # type: ignore[attr-defined]
    assert session.num_unfinished == 0
    assert session.engine.num_unfinished == 0


def test_requests_join_others_that_run(session: Session) -> None:
    first = session.submit(DrawRequest(prompt="a fox", seed=1))
    events = session.step() + session.step()
    second = session.submit(DrawRequest(prompt="a fox", seed=1))
    third = session.submit(DrawRequest(prompt="a fox", seed=2))
    with pytest.raises(EngineError, match="unfinished requests"):
        next(session.run([DrawRequest(prompt="a fox", seed=1)]))
    session.cancel(third)
    while session.num_unfinished:
        events += session.step()
    pictures = {event.index: event.codes.array for event in only(events, ImageFinished)}
    assert set(pictures) == {first, second}
    np.testing.assert_array_equal(pictures[first], pictures[second])
    assert {event.index for event in only(events, ImageStarted)} == {first, second}


def test_captions_come_for_each_picture(session: Session, tmp_path: Path) -> None:
    fox().save(tmp_path / "fox.png")
    pictures: list[PictureSource] = [
        tmp_path / "fox.png",
        tmp_path / "none.png",
        fox(),
        fox(80, 80),
    ]
    events = list(session.caption_many(pictures, seed=3))
    answers = {event.index: event for event in only(events, TurnFinished)}
    assert set(answers) == {0, 2, 3}
    assert answers[0].text == answers[2].text
    assert isinstance(only(events, TurnFailed)[0].error, PictureError)
    for index, answer in answers.items():
        deltas = [event.text for event in only(events, TextDelta) if event.index == index]
        assert answer.text == "".join(deltas)
        limit = min(64, 128 - answer.usage.prompt_ids)
        assert answer.usage.text_ids <= limit
        assert answer.end == "end" or answer.usage.text_ids == limit


def test_a_caption_asks_about_the_picture(session: Session) -> None:
    request = CaptionRequest(picture=fox(), prompt="which colour?", max_text_ids=5)
    span = session.begin(0, request).span
    vocabulary = session.codec.vocabulary
    (codes,) = session.codec.encode_images([fox()], "palette")
    image = session.codec.grammar.spell_image("palette", codes)
    question = session.codec.text_tokenizer.encode("which colour?")
    opening = [vocabulary.bos_id, vocabulary.user_id]
    closing = [vocabulary.end_id, vocabulary.assistant_id]
    assert list(span.prompt_ids) == [*opening, *image, *question, *closing]
    assert span.stop_ids == {vocabulary.end_id}
    assert span.sampling == SamplingParams(temperature=0.5)
    assert (span.max_ids, span.unguided_ids) == (5, None)
    assert not span.constraint.allows(vocabulary.tokenizer("palette").marker_id)
    assert not span.constraint.allows(vocabulary.null_id)


def scripted(model_path: Path, spans: Sequence[Sequence[int]]) -> tuple[Session, ScriptedEngine]:
    engine = ScriptedEngine(spans)
    return Session(open_checkpoint(model_path), engine), engine


def test_a_chat_turn_mixes_words_and_pictures(model_path: Path, session: Session) -> None:
    vocabulary, text = session.codec.vocabulary, session.codec.text_tokenizer
    ranges = vocabulary.tokenizer("palette")
    here, done = text.encode("here: é"), text.encode(" done")
    rows, columns = (vocabulary.shape_id("palette", 4) for _ in range(2))
    codes = [ranges.code_ids[0][code] for code in range(16)]
    chat, engine = scripted(
        model_path,
        [[*here, ranges.marker_id], [rows], [columns], codes, [*done, vocabulary.end_id]],
    )
    document = Document(turns=(Turn("user", (Text("hi"),)),))
    events = list(chat.chat(document, seed=9))
    (image,), (end,) = only(events, ImageFinished), only(events, TurnFinished)
    assert image.codes.array[:, 0].tolist() == list(range(16))
    assert "".join(event.text for event in only(events, TextDelta)) == "here: é done"
    assert end.turn.segments == (
        Text("here: é"),
        Image(codes=image.codes, tokenizer="palette"),
        Text(" done"),
    )
    assert (end.end, end.usage.image_ids) == ("end", 16)
    assert end.usage.text_ids == len(here) + len(done)
    # What the spans continue is, to its end, a document.
    last = engine.requests[-1].prompt_ids
    spans = chat.codec.grammar.parse([*last, *done, vocabulary.end_id, vocabulary.eos_id])
    assert [span.codes for span in spans if isinstance(span, ImageSpan)] == [image.codes]
    drawn = engine.requests[3]
    assert (drawn.guidance_scale, drawn.max_ids) == (2.0, 16)
    assert drawn.unguided_ids == tuple(null_condition(drawn.prompt_ids, vocabulary))
    assert engine.requests[0].seed == 9
    assert len({request.seed for request in engine.requests}) == 5
    assert [request.is_guided for request in engine.requests] == [False, False, False, True, False]
    assert not engine.requests[-1].constraint.allows(ranges.marker_id)


def test_a_chat_turn_ends_at_its_length(model_path: Path, session: Session) -> None:
    said = session.codec.text_tokenizer.encode("abc")
    chat, _ = scripted(model_path, [said])
    request = ChatRequest(
        document=Document(turns=(Turn("user", (Text("hi"),)),)), seed=0, max_text_ids=len(said)
    )
    (end,) = only(chat.run([request]), TurnFinished)
    assert (end.end, end.text) == ("length", "abc")


def test_text_cut_inside_a_character_is_not_lost(model_path: Path, session: Session) -> None:
    said = session.codec.text_tokenizer.encode("é")[:1]
    chat, _ = scripted(model_path, [said])
    request = ChatRequest(
        document=Document(turns=(Turn("user", (Text("hi"),)),)), seed=0, max_text_ids=1
    )
    (end,) = only(chat.run([request]), TurnFinished)
    assert end.text == "\ufffd"


def test_no_picture_is_begun_that_does_not_fit(session: Session) -> None:
    marker = session.codec.vocabulary.tokenizer("palette").marker_id

    def may_draw(words: str, max_images: int = 1) -> bool:
        document = Document(turns=(Turn("user", (Text(words),)),))
        request = ChatRequest(document=document, seed=0, max_images=max_images)
        span = session.begin(0, request).span
        return span.constraint.allows(marker)

    assert may_draw("hi")
    assert not may_draw("hi " * 30)
    assert not may_draw("hi", max_images=0)


def test_a_turn_can_be_made_to_draw(session: Session) -> None:
    image = Image(picture=fox(), tokenizer="palette")
    document = Document(turns=(Turn("user", (image, Text("draw a red fox"))),))
    request = ChatRequest(document=document, seed=4, must_draw=True, size=(64, 64), max_text_ids=0)
    events = list(session.run([request]))
    (drawn,) = [event for event in events if isinstance(event, ImageFinished)]
    assert (drawn.picture.shape, drawn.seed) == ((64, 64, 3), 4)
    assert isinstance(events[-1], TurnFinished)
    assert (events[-1].end, events[-1].text) == ("image", "")
    assert (events[-1].usage.prompt_image_ids, events[-1].usage.image_ids) == (16, 64)


def test_a_turn_that_must_draw_like_a_drawing_is_that_drawing(session: Session) -> None:
    document = Document(turns=(Turn("user", (Text("draw a red fox"),)),))
    request = ChatRequest(document=document, seed=4, must_draw=True, max_text_ids=0)
    as_turn = [event for event in session.run([request]) if isinstance(event, ImageFinished)]
    as_drawing = [
        event for event in session.draw("a red fox", seed=4) if isinstance(event, ImageFinished)
    ]
    assert np.array_equal(as_turn[0].picture, as_drawing[0].picture)


def test_a_size_needs_a_picture_that_must_come() -> None:
    document = Document(segments=(Text("a"),))
    with pytest.raises(SettingsError, match="only where a picture must come"):
        ChatRequest(document=document, seed=0, size=(32, 32))
    with pytest.raises(SettingsError, match="max_images must be 1 or more"):
        ChatRequest(document=document, seed=0, must_draw=True, max_images=0)
    with pytest.raises(SettingsError, match="1 token or more"):
        ChatRequest(document=document, seed=0, max_text_ids=0)


def test_a_full_context_is_refused(session: Session) -> None:
    words = "".join(chr(33 + i % 90) for i in range(200))
    with pytest.raises(SettingsError, match="tokens of the 128 that fit, which leaves no room"):
        session.chat(Document(turns=(Turn("user", (Text(words),)),)))


def test_closing_the_stream_cancels(session: Session) -> None:
    events = session.draw("a fox", n=3)
    for _ in range(5):
        next(events)
    events.close()  # type: ignore[attr-defined]
    assert session.engine.num_unfinished == 0


def test_halves_of_tokenizers_suffice(model_path: Path) -> None:
    assert only(open_session(model_path, parts="decoder").draw("a fox"), ImageFinished)
    assert only(open_session(model_path, parts="encoder").caption(fox()), TurnFinished)
    with pytest.raises(PluginError):
        open_session("no-such-model")


@pytest.mark.parametrize("limits", [{"max_text_ids": 0}, {"max_images": -1}])
def test_bad_limits_are_refused(limits: dict[str, int]) -> None:
    request = ChatRequest(document=Document(segments=(Text("a"),)), seed=0)
    with pytest.raises(SettingsError):
        replace(request, **limits)  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="an answer needs 1 token or more, got 0"):
        CaptionRequest(picture=b"", max_text_ids=0)
