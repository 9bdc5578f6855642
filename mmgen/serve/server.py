"""One engine as a server: the router over a service, on a socket that is bound."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

from mmgen.generate.service import Service
from mmgen.generate.session import Session
from mmgen.serve.app import create_app
from mmgen.serve.listening import log_to_stderr, serve_app
from mmgen.serve.settings import ServerConfig

__all__ = ["serve_session"]


def serve_session(
    open_session: Callable[[], Session],
    config: ServerConfig,
    listener: socket.socket,
    *,
    shutdown_seconds: int = 30,
    log_requests: bool = False,
    when_ready: Callable[[], None] = lambda: None,
    report: Callable[[int | None], None] | None = None,
) -> None:
    """Open a session, serve until SIGTERM or Ctrl-C as `serve_app` does, and close it.

    Args:
        report: of a server that is one of several: told whenever it has more or fewer turns in the
            works, and None when its engine has stopped, which also ends it.
    """
    log_to_stderr(log_requests)
    ending = threading.Event()

    def engine_stopped() -> None:
        if report is not None:
            report(None)
            ending.set()

    def tell(turns: int) -> None:
        if report is not None and not ending.is_set():
            report(turns)

    with Service.open(open_session, when_stopped=engine_stopped) as service:
        app = create_app(service, config, report=tell)
        serve_app(
            app,
            listener,
            shutdown_seconds=shutdown_seconds,
            log_requests=log_requests,
            when_ready=when_ready,
            ending=ending,
        )
        app.state.desk.previews.close()
