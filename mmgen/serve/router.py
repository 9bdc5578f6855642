"""Requests to the replica that has the least to do, and its answers back as they come.

Each replica is a whole server of its own, with an engine and this package's routes, on a socket
that nobody else reaches. A request goes to one of them as it is: all its pictures, and both halves
of each pair, are drawn by one engine. What is asked of the server as a whole, its health and its
counters, is answered for all replicas together.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import final

import httpx
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from mmgen.serve.board import ABSENT, Board
from mmgen.serve.merged_metrics import merged_metrics
from mmgen.serve.metrics import Metrics
from mmgen.serve.refusals import Refusal, error_body
from mmgen.serve.replies import json_response, refusal_response, to_json, unless_gone

__all__ = ["Router"]

CONNECT_SECONDS = 10.0
STATE_SECONDS = 5.0
"""Longest wait for what a replica counts."""

_OF_ONE_CONNECTION = {
    b"connection",
    b"keep-alive",
    b"proxy-connection",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
}
"""Headers that are not passed on."""

_DIED = "the engine that worked on this request has stopped; send it again and another one will"


@final
class Router:
    """An application in front of replicas."""

    def __init__(self, sockets: Sequence[Path], board: Board, *, favourite: int = 0) -> None:
        """Know the replicas.

        Args:
            sockets: in the order that the board has them.
            favourite: the replica that is taken where several have equally little to do, so that
                several routers do not all take the same.
        """
        self._board = board
        self._favourite = favourite
        self._in_flight = [0] * len(sockets)
        self._clients = [
            httpx.AsyncClient(
                transport=httpx.AsyncHTTPTransport(
                    uds=str(path), limits=httpx.Limits(max_connections=None)
                ),
                base_url="http://replica",
                timeout=httpx.Timeout(None, connect=CONNECT_SECONDS),
            )
            for path in sockets
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        assert scope["type"] == "http", "nothing else is offered to it"
        try:
            if scope["path"] == "/health":
                await self._health()(scope, receive, send)
            elif scope["path"] == "/metrics":
                await (await self._metrics())(scope, receive, send)
            else:
                await self._pass_on(scope, receive, send)
        except Refusal as refusal:
            await refusal_response(refusal)(scope, receive, send)

    def _health(self) -> Response:
        numbers = self._board.read()
        replicas = [
            {"status": "stopped"} if number == ABSENT else {"status": "ok", "turns": number}
            for number in numbers
        ]
        num_left = sum(number != ABSENT for number in numbers)
        if not num_left:
            raise Refusal("all engines have stopped", status=503, code="engine_stopped")
        status = "ok" if num_left == len(numbers) else "degraded"
        return json_response({"status": status, "replicas": replicas})

    async def _metrics(self) -> Response:
        """Return the counters of every replica that can say them."""

        async def ask(number: int) -> str | None:
            with suppress(httpx.HTTPError):
                answer = await self._clients[number].get("/metrics", timeout=STATE_SECONDS)
                return answer.text
            return None

        present = [place for place, turns in enumerate(self._board.read()) if turns != ABSENT]
        texts = dict(zip(present, await asyncio.gather(*map(ask, present)), strict=True))
        told = [texts.get(number) for number in range(len(self._clients))]
        return Response(merged_metrics(told), headers={"content-type": Metrics.CONTENT_TYPE})

    def _choose(self, tried: set[int]) -> int:
        """Return the replica that has the least to do.

        Raises:
            Refusal: none is left.
        """
        # What was passed on a moment ago may not be on the board yet.
        work = {
            place: (
                max(turns, self._in_flight[place]),
                self._in_flight[place],
                (place - self._favourite) % len(self._clients),
            )
            for place, turns in enumerate(self._board.read())
            if turns != ABSENT and place not in tried
        }
        if not work:
            raise Refusal("all engines have stopped", status=503, code="engine_stopped")
        return min(work, key=work.__getitem__)

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        tried: set[int] = set()
        while True:
            number = self._choose(tried)
            self._in_flight[number] += 1
            try:
                await _Errand(scope, receive, send).run(self._clients[number])
                return
            except httpx.ConnectError:
                tried.add(number)
            finally:
                self._in_flight[number] -= 1


class _Errand:
    """One request on its way to a replica and its answer on the way back."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._is_sent = asyncio.Event()
        """Whether the request's body is complete; from then on the client can only leave."""
        self._has_begun = False
        self._is_stream = False

    async def run(self, client: httpx.AsyncClient) -> None:
        """Pass the request on; the client's leaving cancels it at the replica.

        Raises:
            ConnectError: the replica is not there, and has read nothing.
            Refusal: it has gone, or the client has.
        """

        async def after_the_body() -> Message:
            await self._is_sent.wait()
            return await self._receive()

        try:
            await unless_gone(after_the_body, self._carry(client))
        except httpx.ConnectError:
            raise
        except httpx.TransportError as error:
            refusal = Refusal(_DIED, status=503, code="engine_stopped", retry_after=1)
            if not self._has_begun:
                raise refusal from error
            if not self._is_stream:
                # An answer that was cut off must not look whole; the connection is cut, too.
                raise
            told = f"event: error\ndata: {to_json(error_body(refusal))}\n\n".encode()
            await self._send({"type": "http.response.body", "body": told, "more_body": False})
        except Refusal:
            # The client has gone, so nobody needs to be told.
            if not self._has_begun:
                raise

    async def _carry(self, client: httpx.AsyncClient) -> None:
        scope = self._scope
        headers = _passed_on(scope["headers"])
        has_body = any(
            name in (b"content-length", b"transfer-encoding") for name, _ in scope["headers"]
        )
        if not has_body:
            self._is_sent.set()
        path, query = scope["raw_path"], scope["query_string"]
        request = client.build_request(
            scope["method"],
            client.base_url.copy_with(raw_path=path + b"?" + query if query else path),
            headers=headers,
            content=self._body() if has_body else None,
        )
        response = await client.send(request, stream=True)
        try:
            kind = response.headers.get("content-type", "")
            self._is_stream = kind.startswith("text/event-stream")
            self._has_begun = True
            await self._send(
                {
                    "type": "http.response.start",
                    "status": response.status_code,
                    "headers": _passed_on(response.headers.raw),
                }
            )
            async for chunk in response.aiter_raw():
                body = {"type": "http.response.body", "body": chunk, "more_body": True}
                await self._send(body)
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            await response.aclose()

    async def _body(self) -> AsyncGenerator[bytes, None]:
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise Refusal("the client has gone", status=499)
            yield message.get("body", b"")
            if not message.get("more_body", False):
                self._is_sent.set()
                return


def _passed_on(headers: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    return [
        (name.lower(), value) for name, value in headers if name.lower() not in _OF_ONE_CONNECTION
    ]
