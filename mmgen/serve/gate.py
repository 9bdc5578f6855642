"""What every request passes before any of it is read: the key, the limits, a place.

It is a layer of its own around the router, so that a body is neither waited for nor kept in memory
when its sender may not send it.
"""

from __future__ import annotations

import asyncio
import hmac
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mmgen.serve.admission import Admission
from mmgen.serve.metrics import Metrics
from mmgen.serve.refusals import Refusal
from mmgen.serve.replies import refusal_response
from mmgen.serve.settings import Limits, ServerConfig

__all__ = ["PLACE", "Gate"]

PLACE = "mmgen.place"
"""The request's `Place`, in its scope."""


class Gate:
    """Guards an application."""

    def __init__(
        self, app: ASGIApp, *, config: ServerConfig, admission: Admission, metrics: Metrics
    ) -> None:
        self._app = app
        self._key = None if config.api_key is None else f"Bearer {config.api_key}".encode()
        self._limits = config.limits
        self._admission = admission
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500

        async def counting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._guarded(scope, receive, counting)
        except Refusal as refusal:
            await refusal_response(refusal)(scope, receive, counting)
        finally:
            route = scope.get("route")
            self._metrics.request(getattr(route, "path", "other"), status)

    async def _guarded(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {name: value for name, value in scope["headers"]}
        is_work = scope["path"].startswith("/v1/")
        if is_work and not self._has_key(headers.get(b"authorization", b"")):
            self._metrics.refused("key")
            raise Refusal(
                "the API key is missing or wrong; send it as `Authorization: Bearer KEY`",
                status=401,
                code="invalid_api_key",
            )
        body = _Body(receive, self._limits, self._metrics)
        body.check_announced(headers.get(b"content-length"))
        if not is_work or scope["method"] != "POST":
            await self._app(scope, body.receive, send)
            return
        try:
            place = self._admission.enter()
        except Refusal:
            self._metrics.refused("load")
            raise
        with place:
            scope[PLACE] = place
            await self._app(scope, body.receive, send)

    def _has_key(self, given: bytes) -> bool:
        scheme, _, key = given.partition(b" ")
        given = scheme.capitalize() + b" " + key.strip()
        return self._key is None or hmac.compare_digest(given, self._key)


class _Body:
    """A request's body, counted while it comes in."""

    def __init__(self, receive: Receive, limits: Limits, metrics: Metrics) -> None:
        self._receive = receive
        self._limits = limits
        self._metrics = metrics
        self._num_bytes = 0
        self._deadline = time.monotonic() + limits.max_body_seconds
        self._is_complete = False

    def check_announced(self, length: bytes | None) -> None:
        """Refuse a body that says itself that it is too large."""
        if length is not None and length.isdigit() and int(length) > self._limits.max_body_bytes:
            raise self._too_large()

    async def receive(self) -> Message:
        """Pass a message on."""
        if self._is_complete:
            return await self._receive()
        try:
            async with asyncio.timeout(max(0.0, self._deadline - time.monotonic())):
                message = await self._receive()
        except TimeoutError:
            self._metrics.refused("body")
            raise Refusal(
                f"the body did not come within {self._limits.max_body_seconds:g} s",
                status=408,
                code="request_timeout",
            ) from None
        if message["type"] == "http.request":
            self._num_bytes += len(message.get("body", b""))
            if self._num_bytes > self._limits.max_body_bytes:
                raise self._too_large()
            self._is_complete = not message.get("more_body", False)
        else:
            self._is_complete = True
        return message

    def _too_large(self) -> Refusal:
        self._metrics.refused("body")
        return Refusal(
            f"the body has more than {self._limits.max_body_bytes:,} bytes; make its pictures "
            "smaller",
            status=413,
            code="request_too_large",
        )
