"""Talking to a server: one client, streams of JSON events, and what to make of its refusals.

The key goes into one header and nowhere else: it is taken out of whatever the server says before
anybody sees it, and redirects, which could carry it elsewhere, are not followed.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Self
from urllib.parse import urlsplit

import httpx
import httpx_sse

from mmgen.errors import SettingsError
from mmgen_chat.errors import (
    BackendError,
    EndpointDownError,
    EndpointReplyError,
    NoRoomError,
    NotAllowedError,
)
from mmgen_chat.safe_text import one_line

__all__ = ["Endpoint", "MissingRouteError", "RefusedFieldError"]

_CONNECT_SECONDS = 10.0
_SILENCE_SECONDS = 300.0
_TOO_LONG = (
    "context_length_exceeded", "context length", "context window", "maximum context",
    "tokens of the", "too many tokens", "prompt is too long",
)  # fmt: skip


class MissingRouteError(EndpointReplyError):
    """A server has no such route."""


class RefusedFieldError(EndpointReplyError):
    """A server refuses a field of a request, named `param`."""

    def __init__(self, message: str, *, param: str) -> None:
        super().__init__(message)
        self.param = param


class Endpoint:
    """A server that speaks OpenAI's protocol."""

    def __init__(self, address: str, *, api_key: str | None = None) -> None:
        """Take note of an address; nothing is sent yet.

        Args:
            address: such as `http://localhost:8000/v1`; `/v1` is added where there is no path.

        Raises:
            SettingsError: the address or the key cannot be used.
        """
        self.address = _normal(address)
        if api_key is not None and not (api_key.isascii() and api_key.isprintable()):
            raise SettingsError("the API key has characters that no HTTP header can carry")
        self._api_key = api_key
        headers = {} if api_key is None else {"authorization": f"Bearer {api_key}"}
        self._client = httpx.AsyncClient(
            headers=headers,
            timeout=httpx.Timeout(_SILENCE_SECONDS, connect=_CONNECT_SECONDS),
            follow_redirects=False,
        )

    async def get(self, route: str) -> Any:
        """Return the JSON that a route gives."""
        async with self._errors():
            response = await self._client.get(f"{self.address}{route}")
            await self._check(response)
            return self._json(response.text)

    async def events(self, route: str, body: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any]]:
        """Yield the events of a stream; a plain JSON answer counts as one event.

        Closing the generator ends the connection, by which servers know to stop.
        """
        url = f"{self.address}{route}"
        async with self._errors():
            async with self._client.stream("POST", url, json=dict(body)) as response:
                await self._check(response)
                kind = response.headers.get("content-type", "").partition(";")[0].strip()
                if kind == "application/json":
                    text = (await response.aread()).decode("utf-8", errors="replace")
                    yield self._event(text)
                    return
                source = httpx_sse.EventSource(response)
                try:
                    async for item in source.aiter_sse():
                        if item.data.strip() == "[DONE]":
                            return
                        if item.data:
                            yield self._event(item.data)
                except httpx_sse.SSEError as error:
                    raise EndpointReplyError(
                        f"{self.address} answered with {kind or 'nothing'} where a stream was "
                        "expected; is the address right?"
                    ) from error

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _event(self, text: str) -> dict[str, Any]:
        event = self._json(text)
        if not isinstance(event, dict):
            raise EndpointReplyError(f"{self.address} sent {text[:40]!r}, which is no event")
        if event.get("error"):
            raise self._refusal(200, event, None)
        return event

    def _json(self, text: str) -> Any:
        try:
            return json.loads(text)
        except ValueError as error:
            raise EndpointReplyError(
                f"{self.address} sent what is not JSON: {self._clean(text[:60])!r}; is the "
                "address right?"
            ) from error

    async def _check(self, response: httpx.Response) -> None:
        """Raise what an HTTP status means."""
        status = response.status_code
        if status == 200:
            return
        text = (await response.aread()).decode("utf-8", errors="replace")
        if 300 <= status < 400:
            raise EndpointReplyError(
                f"{self.address} sends us elsewhere (HTTP {status}); give the address where the "
                "server is, with its path"
            )
        try:
            body = json.loads(text)
        except ValueError:
            body = None
        raise self._refusal(status, body, response.headers.get("retry-after"))

    def _refusal(self, status: int, body: Any, retry_after: str | None) -> BackendError:
        """Return the error that a refusal is."""
        found = body.get("error", body) if isinstance(body, dict) else None
        details = found if isinstance(found, dict) else {}
        said = str(details.get("message") or details.get("detail") or "")
        if isinstance(found, str):
            said = found
        code = str(details.get("code") or "")
        what = self._clean(said) or "no reason given"
        if status in (401, 403) or "authentication" in str(details.get("type")):
            if self._api_key is None:
                return NotAllowedError(
                    f"{self.address} wants an API key; put it into the environment variable that "
                    "api_key_env names (OPENAI_API_KEY unless set)"
                )
            return NotAllowedError(f"{self.address} refuses the API key: {what}")
        if status in (429, 502, 503, 504):
            wait = f"; try again in {one_line(retry_after)} s" if retry_after else "; try again"
            return EndpointDownError(f"{self.address} is too busy (HTTP {status}): {what}{wait}")
        if any(sign in f"{code} {said}".lower() for sign in _TOO_LONG):
            return NoRoomError(f"the dialogue is too long for the model: {what}")
        if status in (404, 405) and (code != "model_not_found" and "model" not in said.lower()):
            return MissingRouteError(f"{self.address} has no such route (HTTP {status}): {what}")
        if status >= 500 or (status == 200 and details.get("type") == "server_error"):
            return EndpointDownError(f"{self.address} failed (HTTP {status}): {what}")
        param = details.get("param")
        message = f"{self.address} refuses the request: {what}"
        if isinstance(param, str) and param:
            return RefusedFieldError(message, param=param)
        return EndpointReplyError(message)

    def _clean(self, text: str) -> str:
        """Return what a server said, on one line, without the key and without terminal codes."""
        if self._api_key:
            text = text.replace(self._api_key, "…")
        return one_line(text, max_length=300)

    @asynccontextmanager
    async def _errors(self) -> AsyncGenerator[None]:
        try:
            yield
        except httpx.ConnectError as error:
            raise EndpointDownError(
                f"nothing answers at {self.address}; is the server running, and the address right?"
            ) from error
        except httpx.TimeoutException as error:
            raise EndpointDownError(f"{self.address} does not answer in time; try again") from error
        except httpx.TransportError as error:
            raise EndpointDownError(
                f"the connection to {self.address} broke ({type(error).__name__}); try again"
            ) from error
        except (httpx.InvalidURL, httpx.HTTPError) as error:
            raise EndpointReplyError(
                f"{self.address} cannot be used: {self._clean(str(error))}"
            ) from error


def _normal(address: str) -> str:
    try:
        parts = urlsplit(address.strip())
        port = parts.port
    except ValueError as error:
        raise SettingsError(f"{address!r} is not an address: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SettingsError(
            f"an endpoint is an address such as http://localhost:8000/v1, got {address!r}"
        )
    if parts.username is not None or parts.password is not None:
        raise SettingsError(
            "an endpoint's address must not carry a user name or password; put the key into an "
            "environment variable"
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    place = host if port is None else f"{host}:{port}"
    return f"{parts.scheme}://{place}{parts.path.rstrip('/') or '/v1'}"
