"""A crew on a Ray cluster: one actor per worker, on whatever machines the cluster has.

Rows go out in packets and results come back to this process, which writes them as any job's; so a
job begun here may go on there. What a lost worker had is answered by another.
"""

from __future__ import annotations

import itertools
import os
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from mmgen.batch.backend import AbstractBackend
from mmgen.batch.committer import Committer
from mmgen.batch.crew import AbstractCrew, Worker
from mmgen.batch.log import Fault, Record
from mmgen.batch.results import Result
from mmgen.batch.rows import BrokenRow, InputRow, Row
from mmgen.batch.runner import RunnerConfig
from mmgen.batch.tasks import AbstractTask
from mmgen.errors import EngineError, SettingsError

__all__ = ["RayCrew", "open_crew"]

_POLL_SECONDS = 0.5
_CONNECT_SECONDS = 10.0
_PACKETS_AHEAD = 2
"""Packets that a worker has before it, so that it never waits for the next one."""
_MOST_LOSSES = 3
"""Times that a packet is given to another worker after one was lost."""


class RayCrew(AbstractCrew):
    """Actors of a cluster that this process is connected to."""

    def __init__(
        self,
        make: Callable[[], tuple[AbstractTask, AbstractBackend]],
        *,
        num_workers: int,
        rows_per_packet: int = 128,
        num_gpus: float = 0.0,
        config: RunnerConfig | None = None,
    ) -> None:
        """Start the actors.

        Args:
            make: opens the model on a worker; pickled by value.
            num_gpus: GPUs that each worker needs.
        """
        if min(num_workers, rows_per_packet) < 1:
            raise SettingsError(
                f"workers and rows per packet must be 1 or more, got {num_workers} and "
                f"{rows_per_packet}"
            )
        self._ray = _ray()
        self._rows_per_packet = rows_per_packet
        self._num_ids = 0
        actor = self._ray.remote(Worker).options(
            num_cpus=1, num_gpus=num_gpus, max_restarts=-1, max_task_retries=_MOST_LOSSES
        )
        self._actors = [actor.remote(make, config or RunnerConfig()) for _ in range(num_workers)]

    @property
    def num_ids(self) -> int:
        return self._num_ids

    def run(
        self,
        rows: Iterable[InputRow],
        committer: Committer,
        write: Callable[[Row, Result], Record],
        stop: threading.Event,
    ) -> None:
        faults: list[BaseException] = []
        committer.on_fault = faults.append
        committer.start()
        try:
            self._run(rows, committer, write, stop, faults)
        finally:
            committer.close()
        if faults:
            raise faults[0]

    def _run(
        self,
        rows: Iterable[InputRow],
        committer: Committer,
        write: Callable[[Row, Result], Record],
        stop: threading.Event,
        faults: list[BaseException],
    ) -> None:
        packets = self._packets(rows, committer)
        under_way: dict[Any, tuple[int, list[Row]]] = {}
        loads = [0] * len(self._actors)
        is_exhausted = False
        while not faults:
            while not is_exhausted and not stop.is_set() and min(loads) < _PACKETS_AHEAD:
                packet = next(packets, None)
                if packet is None:
                    is_exhausted = True
                    break
                place = loads.index(min(loads))
                under_way[self._actors[place].answer.remote(packet)] = (place, packet)
                loads[place] += 1
            if not under_way:
                return
            ready, _ = self._ray.wait(list(under_way), timeout=_POLL_SECONDS)
            for reference in ready:
                place, packet = under_way.pop(reference)
                loads[place] -= 1
                self._take(reference, packet, committer, write)

    def _packets(self, rows: Iterable[InputRow], committer: Committer) -> Iterator[list[Row]]:
        """Yield rows in packets; broken ones get their records at once."""
        good = self._good_rows(rows, committer)
        while packet := list(itertools.islice(good, self._rows_per_packet)):
            yield packet

    @staticmethod
    def _good_rows(rows: Iterable[InputRow], committer: Committer) -> Iterator[Row]:
        for row in rows:
            if isinstance(row, BrokenRow):
                fault = Fault(kind="DataError", reason=row.reason, attempts=1)
                committer.put(Record(row=row.index, id=row.id, fault=fault), _ignore)
            else:
                yield row

    def _take(
        self,
        reference: Any,
        packet: list[Row],
        committer: Committer,
        write: Callable[[Row, Result], Record],
    ) -> None:
        """Write the results of a packet."""
        try:
            found, num_ids = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            last = str(error).strip().splitlines()[-1]
            raise EngineError(f"a worker of the Ray cluster failed: {last}") from error
        self._num_ids += num_ids
        by_place = {row.index: row for row in packet}
        for place, outcome in found:
            row = by_place[place]
            if isinstance(outcome, Fault):
                record = Record(row=row.index, id=row.id, fault=outcome)
            else:
                record = write(row, outcome)
            committer.put(record, _ignore)


@contextmanager
def open_crew(
    make: Callable[[], tuple[AbstractTask, AbstractBackend]],
    *,
    address: str,
    num_workers: int,
    rows_per_packet: int = 128,
    num_gpus: float = 0.0,
    config: RunnerConfig | None = None,
) -> Iterator[RayCrew]:
    """Connect to a cluster, give a crew on it, and leave again.

    Args:
        rows_per_packet: rows that a worker is sent at a time.
        address: of a cluster; `auto` for the one that this machine belongs to, `local` for one
            that is started here and ends with the job.

    Raises:
        SettingsError: Ray is not installed, or there is no cluster.
    """
    ray = _ray()
    is_local = address == "local"
    try:
        _check_reachable(address)
        ray.init(
            address="local" if is_local else address,
            num_cpus=num_workers if is_local else None,
            include_dashboard=False if is_local else None,
            log_to_driver=False,
            logging_level="error",
        )
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        raise SettingsError(
            f"cannot connect to a Ray cluster at {address}: {error}; start one with "
            "`ray start --head`, or use --ray local"
        ) from error
    try:
        yield RayCrew(
            make,
            num_workers=num_workers,
            rows_per_packet=rows_per_packet,
            num_gpus=num_gpus,
            config=config,
        )
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Raise at once if nobody listens, as Ray itself would try for minutes and end the process."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdecimal() and "/" not in host:
        socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()


def _ray() -> Any:
    # Read when the package is imported; a batch job reports to nobody.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        return import_module("ray")
    except ImportError as error:
        raise SettingsError(
            "Ray is not installed; install it with pip install 'mmgen[ray]'"
        ) from error


def _ignore(record: Record) -> None:
    pass
