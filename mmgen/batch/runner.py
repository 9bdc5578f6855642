"""The run of a job: rows in, requests to the engine, results to the log, all at the same time.

Threads read rows, decode pictures and encode them while the engine works; others encode and write
what it drew; one appends to the log and feeds the outputs. The engine's own thread does nothing
else. How far reading may run ahead is bounded, so memory does not grow with the input.
"""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

from mmgen.batch.backend import AbstractBackend, Prepared
from mmgen.batch.log import Fault, Record
from mmgen.batch.results import Answer, More, Result
from mmgen.batch.rows import BrokenRow, InputRow, Row
from mmgen.batch.tasks import AbstractTask
from mmgen.errors import MmgenError, OutputError, SettingsError, TransientError
from mmgen.generate.requests import TurnRequest

__all__ = ["Runner", "RunnerConfig"]

_POLL_SECONDS = 0.2
_LONGEST_WAIT = 120.0
"""Seconds that a busy server can have its askers wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerConfig:
    """How a job runs; none of it changes results."""

    num_workers: int = 2
    """Threads that read and prepare, and as many that encode and write."""
    max_attempts: int = 4
    """How often a row is tried when what went wrong may pass."""
    backoff: float = 1.0
    """Seconds before the second attempt; doubled for each further one."""
    window: int = 4096
    """Rows that may lie between the oldest without a result and the newest begun."""

    def __post_init__(self) -> None:
        if min(self.num_workers, self.max_attempts, self.window) < 1 or self.backoff < 0:
            raise SettingsError(
                "workers, attempts and window must be 1 or more and backoff 0 or more, got "
                f"{self.num_workers}, {self.max_attempts}, {self.window} and {self.backoff}"
            )


@dataclass(slots=True, eq=False)
class _Work:
    """A row on its way."""

    row: Row
    attempt: int = 1
    answers: list[Answer] = field(default_factory=list)
    """Of earlier rounds, and then of this one."""
    open: dict[int, Answer | None] = field(default_factory=dict)
    """This round's requests by key, in order."""
    error: MmgenError | None = None


@dataclass(frozen=True, slots=True, eq=False)
class _Ready:
    work: _Work
    prepared: tuple[Prepared, ...]


class Sink(Protocol):
    """What takes the records of a run: usually the committer."""

    on_fault: Callable[[BaseException], None] | None
    """Told of an error, after which nothing is taken any more."""

    def start(self) -> None:
        """Get ready."""

    def put(self, record: Record, on_committed: Callable[[Record], None]) -> None:
        """Take a record from any thread; `on_committed` is called when it is safe."""

    def close(self) -> None:
        """Wait until everything is safe."""


class Runner:
    """Runs one job once."""

    def __init__(
        self,
        rows: Iterable[InputRow],
        task: AbstractTask,
        backend: AbstractBackend,
        committer: Sink,
        *,
        write: Callable[[Row, Result], Record],
        config: RunnerConfig | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        """Take what a run needs.

        Args:
            rows: those that have no record yet, in order.
            write: puts a result's files on disk and returns its record; for several threads.
            stop: when set, no more rows are begun; what the engine has is finished.
        """
        self._rows = rows
        self._task = task
        self._backend = backend
        self._committer = committer
        committer.on_fault = self._take_fault
        self._write = write
        self._config = config or RunnerConfig()
        self._stop = stop or threading.Event()
        self._abort = threading.Event()
        self._fault: BaseException | None = None
        self._keys = itertools.count()
        self._inbox: queue.SimpleQueue[_Ready | None] = queue.SimpleQueue()
        self._waiting: deque[tuple[_Work, Prepared]] = deque()
        self._started: dict[int, _Work] = {}
        self._turnstile = threading.Condition()
        self._under_way: dict[int, None] = {}
        self._all_fed = False
        workers = self._config.num_workers
        self._lookahead = 3 * backend.capacity + 4 * workers
        self._preparing = ThreadPoolExecutor(workers, thread_name_prefix="batch-prepare")
        self._finishing = ThreadPoolExecutor(workers, thread_name_prefix="batch-finish")

    def run(self) -> bool:
        """Run until every row has its record, or until asked to stop; return whether all have.

        Raises:
            OutputError: something cannot be written; what was, stays valid.
        """
        feeder = threading.Thread(target=self._guarded, args=(self._feed,), name="batch-feed")
        self._committer.start()
        feeder.start()
        try:
            while not self._is_over:
                self._take_ready()
                self._start_waiting()
                if self._started:
                    for outcome in self._backend.step():
                        self._take_outcome(outcome.key, outcome.answer)
        except BaseException:
            self._give_up()
            raise
        finally:
            if self._fault is not None or self._stop.is_set():
                self._wake_feeder()
            feeder.join()
            self._preparing.shutdown(wait=True, cancel_futures=True)
            self._finishing.shutdown(wait=True)
            self._committer.close()
        if self._fault is not None:
            raise self._fault
        return self._all_fed and not self._under_way

    @property
    def _is_over(self) -> bool:
        if self._fault is not None:
            return True
        if self._stop.is_set():
            return not self._started
        with self._turnstile:
            return self._all_fed and not self._under_way

    # Threads that prepare.

    def _feed(self) -> None:
        for row in self._rows:
            with self._turnstile:
                while not (self._is_ending or self._may_begin(row)):
                    self._turnstile.wait()
                if self._is_ending:
                    return
                self._under_way[row.index] = None
            if isinstance(row, BrokenRow):
                fault = Fault(kind="DataError", reason=row.reason, attempts=1)
                self._commit(Record(row=row.index, id=row.id, fault=fault))
            else:
                self._submit(self._preparing, self._prepare, _Work(row))
        with self._turnstile:
            self._all_fed = True

    def _may_begin(self, row: InputRow) -> bool:
        oldest = next(iter(self._under_way), row.index)
        is_near = row.index - oldest < self._config.window
        return is_near and len(self._under_way) < self._lookahead

    @property
    def _is_ending(self) -> bool:
        return self._stop.is_set() or self._abort.is_set()

    def _prepare(self, work: _Work) -> None:
        while not self._is_ending:
            try:
                requests = self._task.requests(work.row)
                self._prepare_requests(work, requests)
                return
            except TransientError as error:
                if not self._wait_for_next_attempt(work, error):
                    self._fail(work, error)
                    return
            except MmgenError as error:
                self._fail(work, error)
                return

    def _prepare_requests(self, work: _Work, requests: Sequence[TurnRequest]) -> None:
        if not requests:
            self._submit(self._finishing, self._finish, work)
            return
        prepared = [self._backend.prepare(next(self._keys), request) for request in requests]
        work.open = {item.key: None for item in prepared}
        self._inbox.put(_Ready(work, tuple(prepared)))

    def _wait_for_next_attempt(self, work: _Work, error: TransientError) -> bool:
        """Wait and count; False when there have been enough attempts."""
        if work.attempt >= self._config.max_attempts:
            return False
        asked = min(error.retry_after or 0.0, _LONGEST_WAIT)
        seconds = max(self._config.backoff * 2 ** (work.attempt - 1), asked)
        end = time.monotonic() + seconds
        while not self._is_ending and time.monotonic() < end:
            time.sleep(min(_POLL_SECONDS, max(0.0, end - time.monotonic())))
        work.attempt += 1
        return True

    # The engine's thread.

    def _take_ready(self) -> None:
        """Take what is prepared; wait for it if the engine has nothing to do."""
        is_idle = not self._started and not self._waiting
        while True:
            try:
                ready = (
                    self._inbox.get(timeout=_POLL_SECONDS) if is_idle else self._inbox.get(False)
                )
            except queue.Empty:
                return
            if ready is not None:
                self._waiting.extend((ready.work, item) for item in ready.prepared)
            is_idle = False

    def _start_waiting(self) -> None:
        """Fill the engine, with prompts as long as the oldest one's first: they cost no filling."""
        room = self._backend.capacity - self._backend.num_unfinished
        if room < 1 or not self._waiting or self._stop.is_set():
            return
        length = self._waiting[0][1].num_ids
        order = sorted(
            range(len(self._waiting)),
            key=lambda place: (abs(self._waiting[place][1].num_ids - length), place),
        )
        chosen = set(order[:room])
        items = list(self._waiting)
        self._waiting = deque(item for place, item in enumerate(items) if place not in chosen)
        for place in sorted(chosen):
            work, prepared = items[place]
            self._started[prepared.key] = work
            try:
                self._backend.start(prepared)
            except MmgenError as error:
                self._take_outcome(prepared.key, error)

    def _take_outcome(self, key: int, answer: Answer | MmgenError) -> None:
        work = self._started.pop(key)
        if isinstance(answer, MmgenError):
            work.error = work.error or answer
            del work.open[key]
        else:
            work.open[key] = answer
        if any(item is None for item in work.open.values()):
            return
        if work.error is None:
            work.answers += [item for item in work.open.values() if item is not None]
            self._submit(self._finishing, self._finish, work)
        elif isinstance(work.error, TransientError):
            self._submit(self._preparing, self._try_again, work)
        else:
            self._fail(work, work.error)

    # Threads that finish.

    def _try_again(self, work: _Work) -> None:
        error = work.error
        assert isinstance(error, TransientError)
        if self._wait_for_next_attempt(work, error):
            work.error, work.answers = None, []
            self._prepare(work)
        else:
            self._fail(work, error)

    def _finish(self, work: _Work) -> None:
        if self._is_ending and not work.answers:
            # Nothing was asked for it yet: what asks no engine begins here.
            return
        try:
            found = self._task.finish(work.row, work.answers)
            if isinstance(found, More):
                self._prepare_requests(work, found.requests)
            else:
                self._commit(self._write(work.row, found))
        except TransientError as error:
            work.error = error
            self._try_again(work)
        except MmgenError as error:
            # That nothing can be written is no fault of the row.
            if isinstance(error, OutputError):
                raise
            self._fail(work, error)

    def _fail(self, work: _Work, error: MmgenError) -> None:
        fault = Fault(
            kind=type(error).__name__, reason=" ".join(str(error).split()), attempts=work.attempt
        )
        self._commit(Record(row=work.row.index, id=work.row.id, fault=fault))

    def _commit(self, record: Record) -> None:
        self._committer.put(record, self._is_committed)

    def _is_committed(self, record: Record) -> None:
        with self._turnstile:
            self._under_way.pop(record.row, None)
            self._turnstile.notify_all()
        self._inbox.put(None)

    def _submit(
        self, pool: ThreadPoolExecutor, action: Callable[[_Work], None], work: _Work
    ) -> None:
        try:
            pool.submit(self._guarded, action, work)
        except RuntimeError:
            # The pool is shut down: the run is ending, and the row keeps for the next one.
            assert self._is_ending or self._fault is not None

    def _guarded(self, action: Callable[..., None], *arguments: object) -> None:
        """Run something in a thread; what goes wrong there ends the run."""
        try:
            action(*arguments)
        except BaseException as error:  # raised again by `run`
            self._take_fault(error)

    def _take_fault(self, error: BaseException) -> None:
        self._fault = self._fault or error
        self._give_up()

    def _give_up(self) -> None:
        self._abort.set()
        self._wake_feeder()
        self._inbox.put(None)

    def _wake_feeder(self) -> None:
        with self._turnstile:
            self._turnstile.notify_all()
