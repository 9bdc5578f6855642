"""Listening on an address and running an application there until a signal comes."""

from __future__ import annotations

import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from mmgen.errors import OutputError

__all__ = ["address_of", "bind", "log_to_stderr", "serve_app"]

KEEP_ALIVE_SECONDS = 30


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that is bound, so that a taken port is told before a model is loaded."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError, OverflowError) as error:
        raise OutputError(f"cannot listen on {host!r}: {error}; choose another --host") from error
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise OutputError(
            f"cannot listen on {host} port {port}: {error.strerror}; choose another with --host "
            "or --port"
        ) from error
    return listener


def address_of(listener: socket.socket) -> str:
    """Return the address by which a client on the same machine reaches a socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve_app(
    app: ASGIApp,
    listener: socket.socket,
    *,
    shutdown_seconds: int,
    log_requests: bool,
    when_ready: Callable[[], None],
    ending: threading.Event | None = None,
) -> None:
    """Run an application until SIGTERM or Ctrl-C.

    Then nothing new is taken, what runs has some time to finish and is cancelled after that. A
    second Ctrl-C cancels at once.

    Args:
        shutdown_seconds: that time.
        log_requests: whether a line per request goes to standard error.
        when_ready: called when connections are accepted.
        ending: ends it as a signal does.
    """
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            access_log=log_requests,
            lifespan="off",
            ws="none",
            log_config=None,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=shutdown_seconds,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
        )
    )
    if ending is not None:
        threading.Thread(target=_end_with, args=(ending, server), daemon=True).start()
    listener.listen(2048)
    with _signals_end_here():
        when_ready()
        server.run(sockets=[listener])


def _end_with(ending: threading.Event, server: uvicorn.Server) -> None:
    ending.wait()
    server.should_exit = True


@contextmanager
def _signals_end_here() -> Iterator[None]:
    """Keep the signals, which uvicorn raises again after it has acted on them, from killing us."""

    def ignore(number: int, frame: FrameType | None) -> None:
        pass

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, ignore) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def log_to_stderr(log_requests: bool) -> None:
    """Send what servers have to say to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("mmgen: %(message)s"))
    for name, level in (
        ("mmgen.serve", logging.WARNING),
        ("uvicorn.error", logging.WARNING),
        ("uvicorn.access", logging.INFO if log_requests else logging.WARNING),
    ):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(level)
