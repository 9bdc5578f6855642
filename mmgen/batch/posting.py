"""Where bodies in OpenAI's shapes are sent: an application in this process, or an address.

Both take a path and a body and give a status and a body. A body is passed on as it is.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeAlias
from urllib.parse import urlsplit

from mmgen.errors import EngineError, SettingsError, TransientError

__all__ = ["AbstractPoster", "AppPoster", "EndpointPoster", "Reply"]


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Follows nobody: another host would be sent the key, and bodies would be left behind."""

    def redirect_request(self, *arguments: Any, **named: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirects())
_BUSY = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
"""Statuses that the same request may not get the next time."""

Message: TypeAlias = MutableMapping[str, Any]
App: TypeAlias = Callable[
    [
        MutableMapping[str, Any],
        Callable[[], Awaitable[Message]],
        Callable[[Message], Awaitable[None]],
    ],
    Awaitable[None],
]
"""An ASGI application."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back for a body."""

    status: int
    body: Any
    """JSON values."""


class AbstractPoster(ABC):
    """Sends bodies. For several threads at once."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What is known of who answers, for the job's identity."""

    @abstractmethod
    def post(self, path: str, body: Any) -> Reply:
        """Send a body and wait for the reply.

        Raises:
            TransientError: the same may succeed later.
            EngineError: there is no reply that can be read.
        """


class AppPoster(AbstractPoster):
    """Calls an application in this process, on an event loop of its own."""

    def __init__(self, app: App, name: str, headers: Mapping[str, str] | None = None) -> None:
        """Start the loop's thread; close the poster to end it.

        Args:
            name: of the model that the application serves.
            headers: sent with every request.
        """
        self._app = app
        self._name = name
        named = {"content-type": "application/json", **(headers or {})}
        self._headers = [(key.lower().encode(), value.encode()) for key, value in named.items()]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="batch-app")
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the loop and its thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    @property
    def name(self) -> str:
        return self._name

    def post(self, path: str, body: Any) -> Reply:
        data = json.dumps(body).encode()
        status, answer = asyncio.run_coroutine_threadsafe(
            self._call(path, data), self._loop
        ).result()
        return _reply(status, answer, path)

    async def _call(self, path: str, data: bytes) -> tuple[int, bytes]:
        """Return the status and the body that the application sends."""
        status = 0
        parts: list[bytes] = []
        pending: list[Message] = [{"type": "http.request", "body": data, "more_body": False}]
        # A client that waits for its answer never leaves.
        forever = asyncio.Event()

        async def receive() -> Message:
            if pending:
                return pending.pop()
            await forever.wait()
            raise AssertionError("nothing more is sent")

        async def send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message["type"] == "http.response.body":
                parts.append(message.get("body", b""))

        length = (b"content-length", str(len(data)).encode())
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [*self._headers, length],
            "client": ("127.0.0.1", 0),
            "server": ("127.0.0.1", 0),
        }
        await self._app(scope, receive, send)
        return status, b"".join(parts)


class EndpointPoster(AbstractPoster):
    """Sends to a server."""

    def __init__(self, address: str, *, api_key: str | None = None, timeout: float = 600.0) -> None:
        """Take the address of a server.

        Args:
            address: up to the path, such as `http://127.0.0.1:8000`; a `/v1` at its end is left.
            timeout: seconds after which an answer is no longer waited for.
        """
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise SettingsError(
                f"an endpoint is an address such as http://127.0.0.1:8000, got {address!r}"
            )
        if "@" in parts.netloc:
            raise SettingsError(
                "an endpoint's address has no user and no password, which would be written down "
                "with the job; give a key with --api-key"
            )
        self._address = address.rstrip("/").removesuffix("/v1")
        self._api_key = api_key
        self._timeout = timeout

    @property
    def name(self) -> str:
        return self._address

    def get(self, path: str) -> Reply:
        """Ask for what the server tells at a path.

        Raises:
            TransientError: the same may succeed later.
            EngineError: there is no reply that can be read.
        """
        return self._send(path, None, {})

    def post(self, path: str, body: Any) -> Reply:
        return self._send(path, json.dumps(body).encode(), {"content-type": "application/json"})

    def _send(self, path: str, data: bytes | None, headers: Mapping[str, str]) -> Reply:
        sent = dict(headers)
        if self._api_key is not None:
            sent["authorization"] = f"Bearer {self._api_key}"
        request = urllib.request.Request(self._address + path, data=data, headers=sent)
        try:
            with _OPENER.open(request, timeout=self._timeout) as response:
                return _reply(response.status, response.read(), path)
        except urllib.error.HTTPError as error:
            with error:
                if 300 <= error.code < 400:
                    raise SettingsError(
                        f"{self._address} sends its callers on to {error.headers['location']}; "
                        "give the address where it answers"
                    ) from error
                return _reply(error.code, error.read(), path, error.headers.get("retry-after"))
        except (OSError, http.client.HTTPException, urllib.error.URLError) as error:
            reason = getattr(error, "reason", error)
            raise TransientError(f"{self._address} does not answer: {reason}") from error


def _reply(status: int, data: bytes, path: str, retry_after: str | None = None) -> Reply:
    """Return a reply, unless it asks to come again."""
    if status in _BUSY:
        raise TransientError(
            f"{path} answered {status}: {data[:200].decode(errors='replace')}",
            # It may also be a date, which is left to the usual pauses.
            retry_after=float(retry_after) if retry_after and retry_after.isdecimal() else None,
        )
    try:
        return Reply(status, json.loads(data))
    except ValueError as error:
        raise EngineError(
            f"{path} answered {status} with something that is not JSON: "
            f"{data[:100].decode(errors='replace')!r}"
        ) from error
