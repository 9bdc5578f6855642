"""Streams to clients that leave, stop reading, or stay to the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest
from starlette.types import Message

from mmgen.errors import EngineError, SettingsError, TransientError
from mmgen.serve import replies
from mmgen.serve.refusals import Refusal, refusal_of
from mmgen.serve.replies import EventStream, to_json, unless_gone


class Source:
    """Endless chunks that notice when they are closed."""

    is_closed = False

    async def chunks(self) -> AsyncGenerator[str, None]:
        try:
            while True:
                yield "data: x\n\n"
                await asyncio.sleep(0)
        finally:
            self.is_closed = True


async def stay() -> Message:
    await asyncio.Event().wait()
    raise AssertionError("nothing comes")


def test_a_client_that_stops_reading_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replies, "SEND_SECONDS", 0.05)
    source, sent = Source(), []

    async def send(message: Message) -> None:
        sent.append(message)
        if len(sent) == 5:
            await asyncio.Event().wait()

    asyncio.run(EventStream(source.chunks())({"type": "http"}, stay, send))
    assert source.is_closed
    assert len(sent) == 5


def test_a_client_that_leaves_closes_the_source() -> None:
    source, num_sent = Source(), 0

    async def send(message: Message) -> None:
        nonlocal num_sent
        num_sent += 1

    async def receive() -> Message:
        while num_sent < 10:
            await asyncio.sleep(0)
        return {"type": "http.disconnect"}

    asyncio.run(EventStream(source.chunks())({"type": "http"}, receive, send))
    assert source.is_closed


def test_a_client_that_stays_gets_everything() -> None:
    sent: list[Message] = []

    async def two() -> AsyncGenerator[str, None]:
        yield "a"
        yield "b"

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(EventStream(two())({"type": "http"}, stay, send))
    assert [message.get("body") for message in sent] == [None, b"a", b"b", b""]
    headers = dict(sent[0]["headers"])
    assert headers[b"content-type"].startswith(b"text/event-stream")
    assert b"content-length" not in headers
    assert not sent[-1]["more_body"]


def test_work_is_over_before_the_client_counts_as_gone() -> None:
    gave_back = False

    async def work() -> None:
        nonlocal gave_back
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            gave_back = True

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def run() -> None:
        with pytest.raises(Refusal, match="the client has gone") as refused:
            await unless_gone(receive, work())
        assert refused.value.status == 499
        assert gave_back

    asyncio.run(run())


def test_who_is_to_blame_decides_the_status() -> None:
    assert refusal_of(SettingsError("no")).status == 400
    assert refusal_of(EngineError("broken")).status == 500
    assert refusal_of(TransientError("busy")).headers == {"retry-after": "1"}


def test_json_is_ascii_whatever_was_quoted() -> None:
    assert to_json({"a": "\ud800é"}) == '{"a":"\\ud800\\u00e9"}'
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json(float("nan"))
