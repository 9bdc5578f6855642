"""The shipped model in this process, without a screen."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat_objects import png
from PIL import Image
from shipped import MINI_CODES

from mmgen.errors import MmgenError, PictureError, SettingsError
from mmgen.generate.provenance import Provenance
from mmgen.pictures import open_picture
from mmgen.visual_tokenizer import Codes
from mmgen_chat.answer import Answer
from mmgen_chat.backend import (
    CaptionRequest,
    ChatRequest,
    DrawRequest,
    Event,
    ImageProgress,
    ImageStarted,
    PictureEncoded,
    TextDelta,
    TurnFailed,
    TurnFinished,
    TurnRequest,
    TurnSettings,
    TurnsLeftOut,
    TurnStarted,
)
from mmgen_chat.conversation import Picture, Turn, Words
from mmgen_chat.embedded import EmbeddedBackend
from mmgen_chat.errors import BackendError, NoRoomError

SETTINGS = TurnSettings(seed=7)


class Stage:
    """One backend and the event loop that it lives on."""

    def __init__(self, runner: asyncio.Runner) -> None:
        self.backend = EmbeddedBackend(previews_per_second=50)
        self._runner = runner

    def run(self, work: Any) -> Any:
        return self._runner.run(asyncio.wait_for(work, 100))

    def ask(self, request: TurnRequest) -> tuple[Turn, list[Event]]:
        async def collect() -> tuple[Turn, list[Event]]:
            answer = Answer(Turn(role="assistant"))
            events = []
            async for event in self.backend.events(request):
                answer.take(event)
                events.append(event)
            return answer.turn, events

        turn, events = self.run(collect())
        return turn, events


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with asyncio.Runner() as runner:
        stage = Stage(runner)
        yield stage
        stage.run(stage.backend.close())


def said(text: str, *pictures: Picture) -> Turn:
    return Turn(role="user", segments=(*pictures, Words(text)))


def test_drawing_two_at_once(stage: Stage, tmp_path: Path) -> None:
    turn, events = stage.ask(DrawRequest(prompt="a red apple", settings=SETTINGS, number=2))
    assert isinstance(events[0], TurnStarted) and isinstance(events[-1], TurnFinished)
    assert sorted(item.index for item in events if isinstance(item, ImageStarted)) == [0, 1]
    assert turn.state == "complete" and turn.usage is not None
    assert turn.usage.image_ids == 2 * MINI_CODES
    by_seed = {item.drawing.seed or 0: item for item in turn.pictures if item.drawing}
    assert sorted(by_seed) == [7, 8]
    for index in (0, 1):
        grown = [item for item in events if isinstance(item, ImageProgress) and item.index == index]
        counts = [item.num_done or 0 for item in grown]
        assert counts == sorted(counts)
        assert grown[-1].num_done == MINI_CODES
        assert any(item.preview is not None for item in grown)
    alone, _ = stage.ask(DrawRequest(prompt="a red apple", settings=replace(SETTINGS, seed=8)))
    assert alone.pictures[0].codes == by_seed[8].codes
    assert alone.pictures[0].png == by_seed[8].png
    # The file says how to draw it again, as those of `mmgen generate` do.
    path = tmp_path / "again.png"
    path.write_bytes(by_seed[8].png or b"")
    assert Provenance.read(path).seed == 8


def test_a_dialogue_about_a_drawn_and_a_shown_picture(stage: Stage, tmp_path: Path) -> None:
    asked = said("draw a red apple")
    drawn, events = stage.ask(ChatRequest(turns=(asked,), settings=SETTINGS, must_draw=True))
    assert drawn.pictures[0].drawing is not None
    assert drawn.pictures[0].drawing.prompt == "draw a red apple"
    # What was drawn in a dialogue does not follow from its prompt alone.
    path = tmp_path / "drawn.png"
    path.write_bytes(drawn.pictures[0].png or b"")
    with pytest.raises(SettingsError, match="does not say how it was drawn"):
        Provenance.read(path)
    more, events = stage.ask(
        ChatRequest(turns=(asked, drawn, said("what color is it?")), settings=SETTINGS)
    )
    assert more.state == "complete" and more.text
    assert not [event for event in events if isinstance(event, PictureEncoded)]
    shown = Picture(png=png(64, 64), size=(64, 64), source="red.png")
    answer, events = stage.ask(ChatRequest(turns=(said("what is it?", shown),), settings=SETTINGS))
    [encoded] = [event.picture for event in events if isinstance(event, PictureEncoded)]
    assert encoded.id == shown.id and encoded.codes is not None and encoded.tokenizer == "holistic"
    again, events = stage.ask(ChatRequest(turns=(said("what is it?", encoded),), settings=SETTINGS))
    assert again.text == answer.text != ""
    assert not [event for event in events if isinstance(event, PictureEncoded)]


def test_a_long_dialogue_keeps_to_what_training_showed(stage: Stage) -> None:
    info = stage.run(stage.backend.open())
    assert info.context_length == 256, "the context has room for 512, but training never used it"
    first, _ = stage.ask(DrawRequest(prompt="a fox", settings=SETTINGS))
    turns: list[Turn] = []
    for _ in range(12):
        turns += [said("draw a fox"), replace(first, id=f"{len(turns)}")]
    request = ChatRequest(turns=(*turns, said("thanks")), settings=SETTINGS)
    turn, events = stage.ask(request)
    assert turn.state == "failed" and isinstance(events[-1], TurnFailed)
    assert isinstance(events[-1].error, NoRoomError)
    # Most of twelve pictures fit, beside room for another one.
    count = len(events[-1].error.turn_ids)
    assert count % 2 == 0 and 4 < count < 20
    assert events[-1].error.turn_ids == tuple(item.id for item in turns[:count])
    assert f"leave out its {count} oldest turns" in str(events[-1].error)
    turn, events = stage.ask(replace(request, may_leave_out=True))
    assert turn.state == "complete"
    [told] = [event for event in events if isinstance(event, TurnsLeftOut)]
    assert told.turn_ids == tuple(item.id for item in turns[:count]) and told.context_length == 256
    assert turn.usage is not None and (turn.usage.prompt_ids or 0) <= 256 - 22


def test_one_message_that_is_too_long(stage: Stage) -> None:
    turn, events = stage.ask(ChatRequest(turns=(said("so " * 600),), settings=SETTINGS))
    assert isinstance(events[-1], TurnFailed) and isinstance(events[-1].error, NoRoomError)
    assert events[-1].error.turn_ids == () and "512 fit in all; shorten it" in turn.failure  # type: ignore[operator]


def test_words_about_a_picture(stage: Stage) -> None:
    picture = Picture(png=png(64, 64, "green"), size=(64, 64))
    turn, events = stage.ask(CaptionRequest(picture=picture, settings=SETTINGS))
    assert turn.text and any(isinstance(event, TextDelta) for event in events)
    assert stage.run(stage.backend.caption(picture)) == turn.text.strip()
    with pytest.raises(PictureError):
        stage.run(stage.backend.caption(Picture(png=b"no picture")))


def test_the_likelihood_prefers_the_words_that_fit(stage: Stage) -> None:
    def likelihood(picture: Picture, prompt: str) -> float:
        return float(stage.run(stage.backend.likelihood(picture, prompt)))

    answer = stage.run(stage.backend.caption(heart := Picture(png=red_disc())))
    assert likelihood(heart, answer) > likelihood(heart, "a submarine under water, at night")
    assert likelihood(heart, answer) < 0


def red_disc() -> bytes:
    rows, columns = np.mgrid[:64, :64]
    pixels = np.full((64, 64, 3), 255, dtype=np.uint8)
    pixels[(rows - 32) ** 2 + (columns - 32) ** 2 < 600] = (220, 30, 30)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def test_codes_are_what_a_picture_is(stage: Stage) -> None:
    turn, _ = stage.ask(DrawRequest(prompt="a fox", settings=SETTINGS))
    [picture] = turn.pictures
    assert picture.codes is not None and picture.png is not None
    rendered = stage.run(stage.backend.render(replace(picture, png=None)))
    assert open_picture(rendered.png).tobytes() == open_picture(picture.png).tobytes()
    some = Codes(picture.codes.array[:8], picture.codes.layout)
    half = stage.run(stage.backend.render(replace(picture, png=None, codes=some)))
    assert half.size == (64, 64) and half.png != rendered.png
    with pytest.raises(BackendError, match="open the model that drew it"):
        stage.run(stage.backend.render(replace(picture, fingerprint="0" * 64)))


def test_stopping_frees_the_engine_at_once(stage: Stage) -> None:
    async def stop_early() -> tuple[Turn, float]:
        answer = Answer(Turn(role="assistant"))
        request = DrawRequest(prompt="a fox", settings=SETTINGS, number=4)
        async with aclosing(stage.backend.events(request)) as events:
            async for event in events:
                answer.take(event)
                if isinstance(event, ImageProgress) and event.preview is not None:
                    break
            started = time.perf_counter()
        return answer.stop(), time.perf_counter() - started

    turn, seconds = stage.run(stop_early())
    assert turn.state == "stopped" and seconds < 2
    assert any(picture.png is not None for picture in turn.pictures)
    assert not any(picture.drawing.is_complete for picture in turn.pictures if picture.drawing)
    after, _ = stage.ask(ChatRequest(turns=(said("hello"),), settings=SETTINGS))
    assert after.state == "complete"
    # Half a picture is nothing that a model could be shown.
    more, _ = stage.ask(
        ChatRequest(turns=(said("draw a fox"), turn, said("hello")), settings=SETTINGS)
    )
    assert more.text == after.text


def test_a_cancelled_listener_is_none(stage: Stage) -> None:
    async def cancel() -> None:
        async def listen() -> None:
            async for _ in stage.backend.events(DrawRequest(prompt="a fox", settings=SETTINGS)):
                pass

        task = asyncio.create_task(listen())
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    stage.run(cancel())
    turn, _ = stage.ask(DrawRequest(prompt="a fox", settings=SETTINGS))
    assert turn.state == "complete"


def test_what_cannot_be_is_refused_in_the_last_event(stage: Stage) -> None:
    for request, kind in (
        (DrawRequest(prompt="a fox", settings=replace(SETTINGS, size=(63, 64))), SettingsError),
        (DrawRequest(prompt="a fox", settings=replace(SETTINGS, tokenizer="vq")), MmgenError),
        (DrawRequest(prompt="a \x1b fox", settings=SETTINGS), SettingsError),
        (DrawRequest(prompt="a fox", settings=replace(SETTINGS, length=9)), SettingsError),
        (CaptionRequest(picture=Picture(png=b"x"), settings=SETTINGS), PictureError),
    ):
        turn, events = stage.ask(request)
        assert isinstance(events[-1], TurnFailed) and isinstance(events[-1].error, kind)
        assert turn.state == "failed" and not events[-1].can_retry


def test_a_model_that_is_not_there_can_be_asked_for_again() -> None:
    async def ask() -> list[Event]:
        async with EmbeddedBackend("no-such-model") as backend:
            request = DrawRequest(prompt="a fox", settings=SETTINGS)
            first = [event async for event in backend.events(request)]
            return first + [event async for event in backend.events(request)]

    failures = asyncio.run(ask())
    assert len(failures) == 2
    assert all(
        "no-such-model" in str(item.error) for item in failures if isinstance(item, TurnFailed)
    )
