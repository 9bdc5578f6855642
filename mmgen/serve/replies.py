"""Responses: JSON, refusals, and streams of events that end when the client leaves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing, suppress
from typing import Any, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from mmgen.serve.refusals import Refusal, error_body

__all__ = ["EventStream", "json_response", "refusal_response", "to_json", "unless_gone"]

Result = TypeVar("Result")

SEND_SECONDS = 60.0
"""Longest time that a client of a stream may read nothing; then it counts as gone."""

CLIENT_GONE = 499
"""The status that logs and metrics have for a client that left; nobody is there to read it."""


def to_json(value: object) -> str:
    """Return compact JSON in ASCII, which whatever a client sent can be quoted in."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def json_response(value: object, status: int = 200) -> Response:
    """Return a response of JSON."""
    return Response(to_json(value), status, media_type="application/json")


def refusal_response(refusal: Refusal) -> Response:
    """Return the response that a refusal is."""
    body = to_json(error_body(refusal))
    return Response(body, refusal.status, refusal.headers, media_type="application/json")


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, Result]) -> Result:
    """Do work while the client is there; cancel it at once when it leaves.

    Args:
        receive: the request's channel, its body already read.

    Raises:
        Refusal: the client has gone.
    """
    task = asyncio.create_task(work)
    watcher = asyncio.create_task(_gone(receive))
    try:
        await asyncio.wait({task, watcher}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        is_done = task.done()
        for other in (task, watcher):
            other.cancel()
        # Whoever is cancelled gives back what it holds before this goes on.
        await asyncio.gather(task, watcher, return_exceptions=True)
    if not is_done:
        raise Refusal("the client has gone", status=CLIENT_GONE)
    return task.result()


class EventStream(Response):
    """Server-sent events from an iterator, which is closed at the end or when the client leaves."""

    media_type = "text/event-stream"

    def __init__(self, chunks: AsyncGenerator[str, None]) -> None:
        """Send pieces of the stream's text as they come."""
        self.status_code = 200
        self.background = None
        self.body = b""
        self._chunks = chunks
        # Proxies are told to pass every event on at once.
        self.init_headers({"cache-control": "no-cache", "x-accel-buffering": "no"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream."""
        headers = [item for item in self.raw_headers if item[0] != b"content-length"]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        with suppress(Refusal, TimeoutError):
            await unless_gone(receive, self._send_all(send))

    async def _send_all(self, send: Send) -> None:
        async with aclosing(self._chunks) as chunks:
            async for chunk in chunks:
                body = chunk.encode()
                async with asyncio.timeout(SEND_SECONDS):
                    await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
