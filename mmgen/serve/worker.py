"""A process that takes connections and passes requests on to replicas.

It knows neither models nor engines: what this module loads is small and quick to start.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from multiprocessing.connection import Connection
from pathlib import Path

from mmgen.serve.board import Board
from mmgen.serve.listening import log_to_stderr, serve_app
from mmgen.serve.router import Router

__all__ = ["belong_to", "run_worker", "socket_of"]


def run_worker(
    place: Path,
    num_replicas: int,
    number: int,
    shutdown_seconds: int,
    log_requests: bool,
    listener: socket.socket,
    pipe: Connection,
) -> None:
    """Serve until told to end; the whole life of the process.

    Args:
        place: the folder with the board and the replicas' sockets.
        number: of the worker.
        listener: is bound, and shared with other workers.
        pipe: takes None when connections are accepted, and is closed by a parent that ends.
    """
    belong_to(pipe)
    log_to_stderr(log_requests)
    sockets = [socket_of(place, replica) for replica in range(num_replicas)]
    router = Router(sockets, Board(place / "board"), favourite=number % num_replicas)
    serve_app(
        router,
        listener,
        shutdown_seconds=shutdown_seconds,
        log_requests=log_requests,
        when_ready=lambda: pipe.send(None),
    )


def socket_of(place: Path, number: int) -> Path:
    """Return the socket on which a replica serves."""
    return place / f"replica-{number}"


def belong_to(pipe: Connection) -> None:
    """Be out of reach of the terminal's signals, and end when the process that started us does."""
    os.setsid()

    def watch() -> None:
        try:
            pipe.recv()
        except (EOFError, OSError):
            os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="mmgen-parent", daemon=True).start()
