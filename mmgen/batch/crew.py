"""Where a job's rows are answered, if not in this process: a crew of workers with a model each."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence

from mmgen.batch.backend import AbstractBackend
from mmgen.batch.committer import Committer
from mmgen.batch.log import Fault, Record
from mmgen.batch.results import Result
from mmgen.batch.rows import InputRow, Row
from mmgen.batch.runner import Runner, RunnerConfig
from mmgen.batch.tasks import AbstractTask

__all__ = ["AbstractCrew", "Worker"]


class AbstractCrew(ABC):
    """Answers rows elsewhere and writes here."""

    @property
    @abstractmethod
    def num_ids(self) -> int:
        """Token ids that the workers have taken and given so far."""

    @abstractmethod
    def run(
        self,
        rows: Iterable[InputRow],
        committer: Committer,
        write: Callable[[Row, Result], Record],
        stop: threading.Event,
    ) -> None:
        """Answer rows and commit their records, until all are done or a stop is asked for.

        Raises:
            MmgenError: the workers cannot go on, or something cannot be written.
        """


class Worker:
    """One member of a crew: a task and a backend, which answer some rows at a time."""

    def __init__(
        self, make: Callable[[], tuple[AbstractTask, AbstractBackend]], config: RunnerConfig
    ) -> None:
        """Load what is needed.

        Args:
            make: opens the model, where the worker is.
        """
        self._task, self._backend = make()
        self._config = config

    def answer(self, rows: Sequence[Row]) -> tuple[list[tuple[int, Result | Fault]], int]:
        """Return what became of rows by their places, and the ids that it took."""
        found: list[tuple[int, Result | Fault]] = []
        lock = threading.Lock()

        def keep(row: Row, result: Result) -> Record:
            with lock:
                found.append((row.index, result))
            return Record(row=row.index, id=row.id)

        before = self._backend.num_ids
        sink = _Memory(found, lock)
        Runner(rows, self._task, self._backend, sink, write=keep, config=self._config).run()
        return sorted(found, key=lambda item: item[0]), self._backend.num_ids - before


class _Memory:
    """Takes records in place of a committer; faults are kept, results are there already."""

    def __init__(self, found: list[tuple[int, Result | Fault]], lock: threading.Lock) -> None:
        self._found = found
        self._lock = lock
        self.on_fault: Callable[[BaseException], None] | None = None

    def start(self) -> None:
        pass

    def put(self, record: Record, on_committed: Callable[[Record], None]) -> None:
        if record.fault is not None:
            with self._lock:
                self._found.append((record.row, record.fault))
        on_committed(record)

    def close(self) -> None:
        pass
