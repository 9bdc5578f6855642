"""One thread that owns a session, so that many callers can share it.

An engine is not for several threads at once. Requests are prepared in the threads that bring them
(reading and encoding pictures takes a while), then run together in this one; each caller gets the
events of its own request, in a thread or in a coroutine. Leaving the events early cancels.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import Future
from types import TracebackType
from typing import Self

from mmgen.errors import EngineError, MmgenError
from mmgen.generate.events import Event, TurnFailed, TurnFinished
from mmgen.generate.requests import TurnRequest
from mmgen.generate.session import Session
from mmgen.generate.turn import TurnInProgress

__all__ = ["Service"]


class Service:
    """Serves requests from any thread with one session, until it is closed."""

    def __init__(
        self, session: Session, *, when_stopped: Callable[[], None] = lambda: None
    ) -> None:
        """Start the thread; from now on the session is the service's own.

        Args:
            when_stopped: called, in the thread, when a fault of the engine has ended all service.
        """
        self._start(lambda: session, when_stopped)

    @classmethod
    def open(
        cls, open_session: Callable[[], Session], *, when_stopped: Callable[[], None] = lambda: None
    ) -> Self:
        """Start the thread and have it open its session itself.

        On a CPU an engine is faster so: each thread that computes gets helpers of its own, and
        where there are more of these than processors, all go to sleep between two operations.

        Args:
            when_stopped: see `Service`.

        Raises:
            MmgenError: the session cannot be opened.
        """
        service = cls.__new__(cls)
        service._start(open_session, when_stopped)
        return service

    def _start(self, open_session: Callable[[], Session], when_stopped: Callable[[], None]) -> None:
        self._when_stopped = when_stopped
        self._inbox: queue.SimpleQueue[TurnInProgress | int | None] = queue.SimpleQueue()
        self._listeners: dict[int, Callable[[Event | EngineError], None]] = {}
        self._lock = threading.Lock()
        self._num_taken = 0
        self._fault: EngineError | None = None
        opened: Future[Session] = Future()
        self._thread = threading.Thread(
            target=self._live, args=(open_session, opened), name="mmgen-session", daemon=True
        )
        self._thread.start()
        self.session = opened.result()

    def _live(self, open_session: Callable[[], Session], opened: Future[Session]) -> None:
        try:
            self.session = open_session()
        except Exception as error:  # raised again where the service is made
            opened.set_exception(error)
            return
        opened.set_result(self.session)
        self._run()

    @property
    def num_unfinished(self) -> int:
        """Requests whose events are still being delivered."""
        return len(self._listeners)

    @property
    def fault(self) -> EngineError | None:
        """Why the service can serve nothing any more; None while it can."""
        return self._fault

    def events(self, request: TurnRequest) -> Iterator[Event]:
        """Yield the events of a request to a thread; the last is `TurnFinished` or `TurnFailed`.

        Raises:
            MmgenError: the request cannot be served, or the service has stopped.
        """
        inbox: queue.SimpleQueue[Event | EngineError] = queue.SimpleQueue()
        index = self._submit(request, inbox.put)
        try:
            while True:
                event = inbox.get()
                if isinstance(event, EngineError):
                    raise event
                yield event
                if isinstance(event, TurnFinished | TurnFailed):
                    return
        finally:
            self._forget(index)

    async def async_events(
        self, request: TurnRequest, *, is_wanted: Callable[[Event], bool] = lambda event: True
    ) -> AsyncGenerator[Event, None]:
        """Yield the events of a request to a coroutine, as `events` does.

        Cancelling the coroutine cancels the request.

        Args:
            is_wanted: asked of each event in the engine's thread, before the event is handed to the
                loop's; what nobody looks at had better not cross over, since both share one
                interpreter.
        """
        loop = asyncio.get_running_loop()
        inbox: asyncio.Queue[Event | EngineError] = asyncio.Queue()

        def deliver(event: Event | EngineError) -> None:
            if not isinstance(event, EngineError) and not is_wanted(event):
                return
            # The loop may have been closed by whoever stopped listening.
            if not loop.is_closed():
                loop.call_soon_threadsafe(inbox.put_nowait, event)

        submission = loop.create_task(asyncio.to_thread(self._submit, request, deliver))
        try:
            index = await asyncio.shield(submission)
        except asyncio.CancelledError:
            # The thread cannot be stopped; what it submits is forgotten as soon as it has.
            submission.add_done_callback(self._forget_submitted)
            raise
        try:
            while True:
                event = await inbox.get()
                if isinstance(event, EngineError):
                    raise event
                yield event
                if isinstance(event, TurnFinished | TurnFailed):
                    return
        finally:
            self._forget(index)

    def close(self) -> None:
        """Cancel what is unfinished, end the thread and close the session."""
        self._inbox.put(None)
        self._thread.join()
        self.session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _submit(self, request: TurnRequest, deliver: Callable[[Event | EngineError], None]) -> int:
        with self._lock:
            index = self._num_taken
            self._num_taken += 1
        turn = self.session.begin(index, request)
        with self._lock:
            if self._fault is not None:
                raise self._fault
            self._listeners[index] = deliver
        self._inbox.put(turn)
        return index

    def _forget_submitted(self, submission: asyncio.Task[int]) -> None:
        if not submission.cancelled() and submission.exception() is None:
            self._forget(submission.result())

    def _forget(self, index: int) -> None:
        with self._lock:
            if self._listeners.pop(index, None) is not None:
                self._inbox.put(index)

    def _run(self) -> None:
        fault = "the session was closed before the answer was complete"
        is_broken = False
        try:
            while self._take_messages():
                for event in self.session.step():
                    self._deliver(event)
        except Exception as error:  # whoever waits must learn of it, whatever it is
            fault = f"the engine stopped: {type(error).__name__}: {error}"
            is_broken = True
        with self._lock:
            self._fault = EngineError(fault)
            listeners, self._listeners = self._listeners, {}
        for index, deliver in listeners.items():
            self.session.cancel(index)
            deliver(EngineError(fault))
        if is_broken:
            self._when_stopped()

    def _take_messages(self) -> bool:
        """Handle what came in, waiting for it if there is nothing to do; False when closed."""
        is_idle = self.session.num_unfinished == 0
        while is_idle or not self._inbox.empty():
            message = self._inbox.get()
            if message is None:
                return False
            if isinstance(message, TurnInProgress):
                if message.index in self._listeners:
                    try:
                        self.session.start(message)
                    except MmgenError as error:
                        self._deliver(TurnFailed(message.index, error))
            else:
                self.session.cancel(message)
            is_idle = self.session.num_unfinished == 0 and self._inbox.empty()
        return True

    def _deliver(self, event: Event) -> None:
        with self._lock:
            deliver = self._listeners.get(event.index)
            if isinstance(event, TurnFinished | TurnFailed):
                self._listeners.pop(event.index, None)
        if deliver is not None:
            deliver(event)
