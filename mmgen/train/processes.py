"""One run by several processes, each with its own device and a share of every batch.

`torchrun` starts the processes. Each holds the whole model and reads the same data position; a
step cuts the batch by rows, adds the gradients up and moves all copies alike. What is learned is
therefore that of one process, whatever their number, and a run may be resumed with another one.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor, distributed

from mmgen.data import Batch
from mmgen.errors import SettingsError

__all__ = ["Processes", "current_processes", "open_processes"]

# One process prepares data or samples pictures while the others wait.
_PATIENCE = timedelta(days=2)


@dataclass(frozen=True, slots=True)
class Processes:
    """The processes of a run, as one of them sees them."""

    rank: int = 0
    """The number of this one, from 0."""
    count: int = 1
    """How many there are."""

    @property
    def is_first(self) -> bool:
        """Whether this one writes files and reports."""
        return self.rank == 0

    def check_rows(self, rows_per_batch: int) -> None:
        """Refuse a batch that cannot be shared evenly."""
        if rows_per_batch % self.count:
            raise SettingsError(
                f"data.rows_per_batch is {rows_per_batch}, which {self.count} processes cannot "
                f"share evenly; make it a multiple of {self.count}"
            )

    def share(self, batch: Batch) -> Batch:
        """Return this process's rows of a batch."""
        return batch.rows(slice(self.rank, None, self.count))

    def add_up(self, tensors: Iterable[Tensor]) -> None:
        """Replace tensors by their sums over all processes, in place; one type, one device."""
        held = list(tensors)
        if self.count == 1 or not held:
            return
        flat = torch.cat([tensor.flatten() for tensor in held])
        distributed.all_reduce(flat)
        start = 0
        for tensor in held:
            stop = start + tensor.numel()
            tensor.copy_(flat[start:stop].view_as(tensor))
            start = stop

    def largest(self, *values: float) -> tuple[float, ...]:
        """Return the largest of each value over all processes."""
        if self.count == 1:
            return values
        held = torch.tensor(values, dtype=torch.float64)
        distributed.all_reduce(held, op=distributed.ReduceOp.MAX)
        return tuple(held.tolist())

    def from_first(self, value: bool) -> bool:
        """Return what the first process has, waiting for it."""
        if self.count == 1:
            return value
        held = torch.tensor([float(value)])
        distributed.broadcast(held, src=0)
        return bool(held.item())

    def check_alike(self, tensors: Iterable[Tensor]) -> None:
        """Refuse to go on with copies of the model that have drifted apart."""
        mine = float(sum(tensor.detach().double().sum().item() for tensor in tensors))
        most, least = self.largest(mine, -mine)
        if most != -least:
            raise SettingsError(
                "the processes hold different weights; start them with the same software, the "
                "same settings and one shared output directory, and resume"
            )


def current_processes() -> Processes:
    """Return the processes of this run: those that `open_processes` joined, or this one alone."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return Processes()
    return Processes(distributed.get_rank(), distributed.get_world_size())


@contextlib.contextmanager
def open_processes() -> Iterator[Processes]:
    """Join the other processes, if `torchrun` started several, and leave them at the end."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Processes()
        return
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        backend = "cpu:gloo,cuda:nccl"
    distributed.init_process_group(backend, timeout=_PATIENCE)
    try:
        yield current_processes()
    finally:
        distributed.destroy_process_group()
