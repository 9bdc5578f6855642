"""Against mmgen's own server, in a process of its own, with the shipped model."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Coroutine, Iterator
from contextlib import aclosing
from typing import Any, TypeVar

import pytest
from shipped import MINI_CODES, MINI_GUIDANCE

from mmgen_chat.answer import Answer
from mmgen_chat.backend import (
    CaptionRequest,
    ChatRequest,
    DrawRequest,
    ImageProgress,
    TextDelta,
    TurnFailed,
    TurnRequest,
    TurnSettings,
    TurnsLeftOut,
)
from mmgen_chat.conversation import Turn, Words
from mmgen_chat.embedded import EmbeddedBackend
from mmgen_chat.endpoint import EndpointBackend
from mmgen_chat.errors import EndpointDownError, NoRoomError, NotAllowedError

pytest.importorskip("fastapi", reason="needs mmgen[serve]")

KEY = "a-key-that-nobody-may-see"
Result = TypeVar("Result")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def serve(port: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "mmgen", "serve", "--port", str(port), "--rows", "8"]
    process = subprocess.Popen(
        command, env=os.environ | {"MMGEN_API_KEY": KEY}, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[1].decode()
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
            return process
        except (OSError, urllib.error.URLError):
            time.sleep(0.1)
    process.kill()
    raise AssertionError("the server did not come up")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    port = free_port()
    process = serve(port)
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.communicate(timeout=30)


def run(work: Coroutine[Any, Any, Result]) -> Result:
    return asyncio.run(asyncio.wait_for(work, 120))


async def collected(
    backend: EndpointBackend | EmbeddedBackend, request: TurnRequest
) -> tuple[Turn, list[Any]]:
    answer = Answer(Turn(role="assistant"))
    events = []
    async for event in backend.events(request):
        answer.take(event)
        events.append(event)
    return answer.turn, events


def talk(*words: str) -> tuple[Turn, ...]:
    return tuple(Turn(role="user", segments=(Words(item),)) for item in words)


def test_the_server_and_the_embedded_model_draw_the_same(address: str) -> None:
    request = DrawRequest(prompt="a red apple", settings=TurnSettings(seed=5), number=2)

    async def both() -> list[tuple[Turn, list[Any]]]:
        async with EndpointBackend(address, api_key=KEY) as there, EmbeddedBackend() as here:
            assert (await there.models())[0].name == "mini"
            info = await there.open()
            assert info.tokenizers[0].sizes == ((64, 64),)
            assert info.guidance_scale == MINI_GUIDANCE
            return [await collected(there, request), await collected(here, request)]

    (far, events), (near, _) = run(both())
    assert [far.state, near.state] == ["complete", "complete"]
    for one, other in zip(far.pictures, near.pictures, strict=True):
        assert one.drawing is not None and other.drawing is not None
        assert one.drawing.seed == other.drawing.seed
        assert one.drawing.guidance_scale == other.drawing.guidance_scale == MINI_GUIDANCE
        assert one.drawing.num_codes == other.drawing.num_codes == MINI_CODES
        assert one.drawing.is_complete and one.size == (64, 64)
        assert one.png is not None and other.png is not None
        assert rgb(one.png) == rgb(other.png)
    assert far.usage is not None and far.usage.image_ids == 2 * MINI_CODES
    previews = [event for event in events if isinstance(event, ImageProgress)]
    assert all(event.preview is not None and event.num_codes == MINI_CODES for event in previews)


def rgb(png: bytes) -> bytes:
    from mmgen.pictures import open_picture

    return open_picture(png).tobytes()


def test_a_dialogue_with_pictures(address: str) -> None:
    settings = TurnSettings(seed=3)

    async def chat() -> list[tuple[Turn, list[Any]]]:
        results = []
        async with EndpointBackend(address, api_key=KEY) as backend:
            first = talk("draw a red apple")
            request = ChatRequest(turns=first, settings=settings, must_draw=True)
            results.append(await collected(backend, request))
            turns = (*first, results[0][0], *talk("what color is it?"))
            results.append(await collected(backend, ChatRequest(turns=turns, settings=settings)))
            [picture] = results[0][0].pictures
            results.append(
                await collected(backend, CaptionRequest(picture=picture, settings=settings))
            )
            assert await backend.caption(picture) == results[2][0].text.strip()
        return results

    (drawn, _), (talked, _), (seen, events) = run(chat())
    [picture] = drawn.pictures
    assert picture.drawing is not None and picture.drawing.seed is not None
    assert picture.drawing.prompt == "draw a red apple"
    assert talked.state == "complete" and talked.text
    assert talked.usage is not None and (talked.usage.prompt_ids or 0) > 20
    assert seen.text and any(isinstance(event, TextDelta) for event in events)


def test_a_dialogue_that_is_too_long_loses_its_oldest_turns(address: str) -> None:
    turns: list[Turn] = []
    for number in range(6):
        turns += talk(f"number {number} " + "and so on " * 40)
        turns.append(Turn(role="assistant", segments=(Words("Yes."),)))
    turns += talk("draw a fox")

    async def chat(may_leave_out: bool) -> tuple[Turn, list[Any]]:
        async with EndpointBackend(address, api_key=KEY) as backend:
            request = ChatRequest(
                turns=tuple(turns), settings=TurnSettings(seed=1), may_leave_out=may_leave_out
            )
            return await collected(backend, request)

    turn, events = run(chat(True))
    assert turn.state == "complete"
    told = [event for event in events if isinstance(event, TurnsLeftOut)]
    assert told and told[-1].turn_ids == tuple(item.id for item in turns)[: len(told[-1].turn_ids)]
    turn, events = run(chat(False))
    assert turn.state == "failed"
    assert isinstance(events[-1], TurnFailed) and isinstance(events[-1].error, NoRoomError)
    assert events[-1].error.turn_ids[0] == turns[0].id


def test_keys_that_do_not_open(address: str) -> None:
    async def knock(key: str | None) -> TurnFailed:
        async with EndpointBackend(address, api_key=key) as backend:
            request = DrawRequest(prompt="a fox", settings=TurnSettings(seed=1))
            _, events = await collected(backend, request)
            [failed] = events
            assert isinstance(failed, TurnFailed)
            return failed

    missing = run(knock(None))
    assert isinstance(missing.error, NotAllowedError) and "wants an API key" in str(missing.error)
    wrong = run(knock("not-that-one"))
    assert isinstance(wrong.error, NotAllowedError) and "refuses" in str(wrong.error)
    assert "not-that-one" not in str(wrong.error)
    assert not wrong.can_retry


@pytest.mark.slow
def test_a_server_that_is_killed_leaves_what_it_said() -> None:
    port = free_port()
    process = serve(port)

    async def draw() -> tuple[Turn, TurnFailed, TurnFailed]:
        answer = Answer(Turn(role="assistant"))
        async with EndpointBackend(f"http://127.0.0.1:{port}", api_key=KEY) as backend:
            request = DrawRequest(prompt="a fox", settings=TurnSettings(seed=1), number=4)
            async with aclosing(backend.events(request)) as events:
                async for event in events:
                    answer.take(event)
                    if isinstance(event, ImageProgress) and process.poll() is None:
                        process.send_signal(signal.SIGKILL)
                        process.wait()
                assert isinstance(event, TurnFailed)
            _, after = await collected(backend, request)
            assert isinstance(after[-1], TurnFailed)
            return answer.turn, event, after[-1]

    turn, failed, later = run(draw())
    assert process.stderr is not None
    process.stderr.close()
    assert isinstance(failed.error, EndpointDownError) and failed.can_retry
    assert turn.state == "failed" and turn.failure
    assert turn.pictures and turn.pictures[0].png is not None
    assert turn.pictures[0].drawing is not None and not turn.pictures[0].drawing.is_complete
    assert isinstance(later.error, EndpointDownError) and "nothing answers" in str(later.error)
