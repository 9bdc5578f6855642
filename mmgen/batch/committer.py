"""The thread that makes results durable: files' names, then the log, then the outputs."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from mmgen.batch.log import Record, ResultsLog
from mmgen.batch.outputs import Layout, Outputs

__all__ = ["Committer"]

_MAX_TOGETHER = 256


class Committer:
    """Takes records from any thread; those that come together are synced together."""

    def __init__(
        self,
        log: ResultsLog,
        layout: Layout,
        outputs: Outputs,
        *,
        on_commit: Callable[[], None],
    ) -> None:
        """Take what is written to.

        Args:
            on_commit: called now and then, when records have been written.
        """
        self._log = log
        self._layout = layout
        self._outputs = outputs
        self._on_commit = on_commit
        self.on_fault: Callable[[BaseException], None] | None = None
        """Told of an error, after which nothing is taken any more."""
        self._inbox: queue.SimpleQueue[tuple[Record, Callable[[Record], None]] | None] = (
            queue.SimpleQueue()
        )
        self._has_failed = False
        self._thread = threading.Thread(target=self._run, name="batch-commit")

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def put(self, record: Record, on_committed: Callable[[Record], None]) -> None:
        """Hand over a record; `on_committed` is called when it is on disk."""
        self._inbox.put((record, on_committed))

    def close(self) -> None:
        """Wait until everything is on disk and end the thread."""
        self._inbox.put(None)
        self._thread.join()

    def _run(self) -> None:
        is_open = True
        while is_open:
            batch = []
            item = self._inbox.get()
            while True:
                if item is None:
                    is_open = False
                    break
                batch.append(item)
                if len(batch) == _MAX_TOGETHER:
                    break
                try:
                    item = self._inbox.get_nowait()
                except queue.Empty:
                    break
            if batch and not self._has_failed:
                try:
                    self._commit([record for record, _ in batch])
                except BaseException as error:  # whoever runs the job must learn of it
                    self._has_failed = True
                    if self.on_fault is None:
                        raise
                    self.on_fault(error)
                    continue
                for record, on_committed in batch:
                    on_committed(record)

    def _commit(self, records: list[Record]) -> None:
        self._layout.sync_folders(records)
        self._log.append(records)
        self._outputs.advance()
        self._on_commit()
