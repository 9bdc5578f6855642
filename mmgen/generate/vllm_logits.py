"""The logits processor that vLLM is given: one class for both of its interfaces.

The older model runner tells a processor who enters, leaves and moves in the batch; the newer one
gives requests fixed slots and says at each step which slot stands in which row. Either way the
rows are then decided by `RowChooser`. vLLM is handed the class itself or its dotted name; it is no
entry point, which would load it into every vLLM of the environment.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from vllm import SamplingParams as VllmSamplingParams
from vllm.v1.sample.logits_processor.interface import (
    BatchUpdate,
    MoveDirectionality,
)
from vllm.v1.sample.logits_processor.interface import LogitsProcessor as BatchLogitsProcessor
from vllm.v1.worker.gpu.sample.logits_processor.interface import (
    LogitsContext,
)
from vllm.v1.worker.gpu.sample.logits_processor.interface import (
    LogitsProcessor as SlotLogitsProcessor,
)

from mmgen.errors import SettingsError
from mmgen.generate.vllm_rows import RowChooser, RowParams, has_rule

__all__ = ["GuidedChoice"]


class GuidedChoice(BatchLogitsProcessor, SlotLogitsProcessor):  # type: ignore[misc]
    """Constraint, guidance and choice for requests of mmgen; others pass untouched."""

    def __init__(self, vllm_config: Any, *rest: Any) -> None:
        """Take what the older runner gives (device, pinning) or the newer one (request states)."""
        self._side: _BatchSide | _SlotSide
        if len(rest) == 1:
            self._side = _SlotSide(vllm_config, rest[0])
        else:
            self._side = _BatchSide(rest[0])

    @classmethod
    def validate_params(cls, sampling_params: VllmSamplingParams) -> None:
        row = RowParams.from_extra_args(sampling_params.extra_args)
        if row is not None and row.rule is not None and not has_rule(row.rule):
            raise SettingsError(f"the rule {row.rule!r} is not known in this process")

    def is_argmax_invariant(self) -> bool:
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        assert isinstance(self._side, _BatchSide)
        if batch_update is not None:
            self._side.update(batch_update)

    def add_request(self, req_idx: int, sampling_params: VllmSamplingParams) -> bool:
        assert isinstance(self._side, _SlotSide)
        return self._side.add(req_idx, sampling_params)

    def apply(self, logits: torch.Tensor, ctx: LogitsContext | None = None) -> torch.Tensor:
        if isinstance(self._side, _SlotSide):
            self._side.apply(logits, ctx)
        else:
            self._side.apply(logits)
        return logits


class _BatchSide:
    """The rows as the older model runner tells of them."""

    def __init__(self, device: torch.device) -> None:
        self._chooser = RowChooser(device)
        self._seats: dict[int, tuple[RowParams | None, Sequence[int]]] = {}
        self._outputs: list[Sequence[int]] = []

    def update(self, change: BatchUpdate) -> None:
        seats = self._seats
        for row in change.removed:
            seats.pop(row, None)
        for row, params, _, output_ids in change.added:
            seats[row] = (RowParams.from_extra_args(params.extra_args), output_ids)
        for source, target, direction in change.moved:
            here, there = seats.pop(source, None), seats.pop(target, None)
            if here is not None:
                seats[target] = here
            if there is not None and direction == MoveDirectionality.SWAP:
                seats[source] = there
        places = [seats.get(row, (None, ())) for row in range(change.batch_size)]
        self._outputs = [output_ids for _, output_ids in places]
        self._chooser.seat([params for params, _ in places])

    def apply(self, logits: torch.Tensor) -> None:
        # The interface shows progress as one growing list per row. Its last entry may be a
        # placeholder for an id still on the device, so that only its length means something.
        lengths = map(len, self._outputs)
        self._chooser.apply(logits, np.fromiter(lengths, np.int64, len(self._outputs)))


class _SlotSide:
    """The rows as the newer model runner tells of them."""

    def __init__(self, vllm_config: Any, states: Any) -> None:
        # Ranks would otherwise decide about different rows each, and pairs be torn apart.
        if getattr(vllm_config.parallel_config, "enable_batch_sharded_sampling", False):
            raise ValueError("guidance needs all rows on every rank: no batch-sharded sampling")
        self._states = states
        self._chooser = RowChooser(states.device)
        self._slots: dict[int, RowParams] = {}
        self._seated: np.ndarray | None = None

    def add(self, slot: int, params: VllmSamplingParams) -> bool:
        row = RowParams.from_extra_args(params.extra_args)
        self._seated = None
        if row is None:
            self._slots.pop(slot, None)
            return False
        self._slots[slot] = row
        return True

    def apply(self, logits: torch.Tensor, ctx: Any) -> None:
        slots = ctx.idx_mapping_np
        if self._seated is None or not np.array_equal(self._seated, slots):
            self._chooser.seat([self._slots.get(slot) for slot in slots.tolist()])
            self._seated = slots.copy()
        lengths = ctx.seq_lens_upper_bound_np.astype(np.int64)
        is_ready = lengths >= self._states.prefill_len.np[slots]
        counts = np.maximum(lengths - self._states.prompt_len.np[slots], 0)
        self._chooser.apply(logits, counts, is_ready)
