"""Several engines and several processes that take requests, as one server.

Replicas are servers of their own, each with its engine, on sockets in a private folder. Workers
take connections from the one address that clients know and pass requests on (`router`). This
process starts them all, says who died, and ends them in order: what runs is finished first.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import final

import torch

from mmgen.errors import EngineError, MmgenError, SettingsError
from mmgen.generate.engines import EngineName
from mmgen.generate.session import Session
from mmgen.generate.vllm_config import VllmEngineConfig
from mmgen.serve.board import ABSENT, Board
from mmgen.serve.listening import log_to_stderr
from mmgen.serve.server import serve_session
from mmgen.serve.settings import ServerConfig
from mmgen.serve.worker import belong_to, run_worker, socket_of

__all__ = ["ReplicaPlan", "replica_devices", "serve_replicas"]

END_SECONDS = 10
"""What processes get, beyond the time for running requests, to end by themselves."""

logger = logging.getLogger("mmgen.serve")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaPlan:
    """What every replica is; it travels to other processes."""

    open_session: Callable[[], Session]
    """Opens a session with an engine; a function of a module or a `partial` of one."""
    config: ServerConfig
    num_replicas: int
    num_workers: int
    devices: tuple[str, ...] | None = None
    """`CUDA_VISIBLE_DEVICES` of each replica; None where they share the processors."""
    shutdown_seconds: int = 30
    log_requests: bool = False


def replica_devices(
    engine: EngineName, device: str, vllm: Sequence[str], num_replicas: int
) -> tuple[str, ...] | None:
    """Return which GPUs each replica gets, as `CUDA_VISIBLE_DEVICES`; None where it needs none.

    Args:
        device: of the torch engine.
        vllm: settings of the engine on vLLM.

    Raises:
        SettingsError: there are too few, or one was chosen for all.
    """
    if engine == "vllm":
        needed = VllmEngineConfig.from_words(vllm).num_devices
        if not torch.cuda.is_available():
            return None
    elif device == "cpu":
        return None
    elif device != "cuda":
        raise SettingsError(f"replicas get a device each, so {device!r} cannot serve all; say cuda")
    else:
        needed = 1
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = chosen.split(",") if chosen else [str(n) for n in range(torch.cuda.device_count())]
    if len(names) < needed * num_replicas:
        raise SettingsError(
            f"{num_replicas} replicas of {needed} GPUs need {needed * num_replicas}, but "
            f"{len(names)} can be seen here"
        )
    return tuple(
        ",".join(names[number * needed : (number + 1) * needed]) for number in range(num_replicas)
    )


def serve_replicas(
    plan: ReplicaPlan, listener: socket.socket, *, when_ready: Callable[[], None] = lambda: None
) -> None:
    """Serve until SIGTERM or Ctrl-C, as `serve_session` does.

    Args:
        listener: is bound.
        when_ready: called when connections are accepted.

    Raises:
        EngineError: a replica does not start, or all have died.
    """
    log_to_stderr(plan.log_requests)
    with TemporaryDirectory(prefix="mmgen-") as name, ExitStack() as stack:
        place = Path(name)
        board = Board.create(place / "board", plan.num_replicas)
        stack.callback(board.close)
        replicas = _Crew("replica", plan.shutdown_seconds, when_lost=_marking(board))
        stack.callback(replicas.end)
        shares = _shares(plan.num_replicas) if plan.devices is None else None
        for number in range(plan.num_replicas):
            with _visible(None if plan.devices is None else plan.devices[number]):
                process = replicas.add(_replica, plan, number, place)
            if shares is not None and process.pid is not None:
                # At once, so that libraries count these processors when they are loaded.
                os.sched_setaffinity(process.pid, shares[number])
        replicas.wait_until_ready()
        listener.listen(2048)
        workers = _Crew("worker", plan.shutdown_seconds)
        stack.callback(workers.end)
        for number in range(plan.num_workers):
            workers.add(
                run_worker,
                place,
                plan.num_replicas,
                number,
                plan.shutdown_seconds,
                plan.log_requests,
                listener,
            )
        workers.wait_until_ready()

        def hurry() -> None:
            for crew in (workers, replicas):
                crew.kill()

        with _signals(hurry) as stopped:
            when_ready()
            for crew in (replicas, workers):
                crew.watch(when_none_is_left=stopped.set)
            stopped.wait()
            workers.end()
            replicas.end()
    for crew in (replicas, workers):
        if crew.is_lost:
            raise EngineError(f"every {crew.name} of the server has died")


@final
class _Crew:
    """Processes of one kind."""

    def __init__(
        self, name: str, seconds: int, *, when_lost: Callable[[int], None] = lambda number: None
    ) -> None:
        """Start without any.

        Args:
            seconds: what running requests get to finish.
            when_lost: is told the number of one that died.
        """
        self.name = name
        self.is_lost = False
        """Whether all of them died."""
        self._seconds = seconds
        self._when_lost = when_lost
        self._is_ending = False
        self._members: list[tuple[SpawnProcess, Connection]] = []
        self._watcher: threading.Thread | None = None

    def add(self, work: Callable[..., None], *arguments: object) -> SpawnProcess:
        """Start one more; its last argument is a pipe, on which it says None when it is ready."""
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=work, args=(*arguments, theirs))
        process.start()
        theirs.close()
        self._members.append((process, ours))
        return process

    def wait_until_ready(self) -> None:
        """Return when all are at work.

        Raises:
            EngineError: one of them is not going to be.
        """
        for number, (process, pipe) in enumerate(self._members):
            try:
                complaint = pipe.recv()
            except EOFError:
                process.join()
                complaint = _how_it_ended(process)
            if complaint is not None:
                raise EngineError(f"{self.name} {number} does not start: {complaint}")

    def watch(self, *, when_none_is_left: Callable[[], None]) -> None:
        """Say who dies, from a thread of its own, until `end`."""
        self._watcher = threading.Thread(
            target=self._watch, args=(when_none_is_left,), name=f"mmgen-{self.name}s", daemon=True
        )
        self._watcher.start()

    def end(self) -> None:
        """Let all finish what they have begun and end; whoever does not is killed."""
        self._is_ending = True
        for process, _ in self._members:
            process.terminate()
        for process, pipe in self._members:
            process.join(self._seconds + END_SECONDS)
            if process.is_alive():
                process.kill()
                process.join()
            pipe.close()
        if self._watcher is not None:
            self._watcher.join()

    def kill(self) -> None:
        """End all at once, whatever they do."""
        self._is_ending = True
        for process, _ in self._members:
            process.kill()

    def _watch(self, when_none_is_left: Callable[[], None]) -> None:
        open_ = dict(enumerate(process for process, _ in self._members))
        while open_:
            wait([process.sentinel for process in open_.values()])
            for number, process in list(open_.items()):
                if process.exitcode is None:
                    continue
                del open_[number]
                self._when_lost(number)
                if self._is_ending:
                    continue
                ended = _how_it_ended(process)
                logger.error(
                    "%s %d has died (%s); what it worked on failed, %d of %d go on",
                    *(self.name, number, ended, len(open_), len(self._members)),
                )
        if not self._is_ending:
            self.is_lost = True
            when_none_is_left()


def _replica(plan: ReplicaPlan, number: int, place: Path, pipe: Connection) -> None:
    """Serve one engine on a socket of its own: the life of a replica."""
    belong_to(pipe)
    board = Board(place / "board")

    def ready() -> None:
        board.write(number, 0)
        pipe.send(None)

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(socket_of(place, number)))
        try:
            serve_session(
                plan.open_session,
                plan.config,
                listener,
                shutdown_seconds=plan.shutdown_seconds,
                when_ready=ready,
                report=lambda turns: board.write(number, ABSENT if turns is None else turns),
            )
        except MmgenError as error:
            pipe.send(str(error))


def _marking(board: Board) -> Callable[[int], None]:
    return lambda number: board.write(number, ABSENT)


def _how_it_ended(process: SpawnProcess) -> str:
    code = process.exitcode
    assert code is not None, "it has ended"
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"


def _shares(num_replicas: int) -> Sequence[set[int]] | None:
    """Return processors for each replica; None where there are too few to divide them."""
    processors = sorted(os.sched_getaffinity(0))
    if len(processors) < num_replicas:
        return None
    return [
        set(
            processors[
                number * len(processors) // num_replicas : (number + 1)
                * len(processors)
                // num_replicas
            ]
        )
        for number in range(num_replicas)
    ]


@contextmanager
def _visible(devices: str | None) -> Iterator[None]:
    """Let processes that are started meanwhile see some GPUs only."""
    name = "CUDA_VISIBLE_DEVICES"
    before = os.environ.get(name)
    if devices is not None:
        os.environ[name] = devices
    try:
        yield
    finally:
        if devices is not None:
            os.environ.pop(name)
            if before is not None:
                os.environ[name] = before


@contextmanager
def _signals(hurry: Callable[[], None]) -> Iterator[threading.Event]:
    """Give an event that is set by the first signal; further ones call `hurry`."""
    stopped = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        if stopped.is_set():
            hurry()
        stopped.set()

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
