"""The engine contract on vLLM, unpatched and in this process.

A guided request becomes a gang of ordinary requests of vLLM, one for each of its streams, with the
same key, handed over between two steps so that they start together; `vllm_rows` draws for all of
them. An id counts only once all have it. If a gang comes apart all the same, whatever the reason,
its rows are withdrawn, cut back to the ids they share, and handed over again with these as part of
the prompt.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace

import torch
from vllm import SamplingParams as VllmSamplingParams
from vllm import TokensPrompt
from vllm.outputs import RequestOutput
from vllm.sampling_params import RequestOutputKind

from mmgen.checkpoint import Checkpoint
from mmgen.errors import EngineError
from mmgen.generate.engine import (
    MAX_STREAMS,
    AbstractEngine,
    FinishReason,
    SpanRequest,
    Step,
    check_request,
)
from mmgen.generate.rule_runs import RuleRun, stuck_error
from mmgen.generate.vllm_admission import Admission, Capacity
from mmgen.generate.vllm_config import VllmEngineConfig, VllmStats
from mmgen.generate.vllm_launch import launch, set_num_threads
from mmgen.generate.vllm_rows import RowParams, leave_rule, withdrawal_id

__all__ = ["VllmEngine"]

PATIENCE = 8
"""Steps beyond those a prompt takes; a row that vLLM lost is not waited for any longer."""


@dataclass(slots=True, eq=False)
class _Row:
    """One of vLLM's requests."""

    name: str
    prompt_ids: tuple[int, ...]
    ids: list[int] = field(default_factory=list)
    is_ended: bool = False


@dataclass(slots=True, eq=False)
class _Flight:
    """A request from submission to its last step, over as many attempts as it takes."""

    index: int
    request: SpanRequest
    run: RuleRun | None
    """Of the request's rule."""
    withdrawal_id: int | None
    """What tells that the request cannot go on; None where that cannot happen."""
    ids: list[int] = field(default_factory=list)
    """Delivered."""
    rows: list[_Row] = field(default_factory=list)
    """What vLLM has of it: a row for each of the request's streams."""
    num_read: int = 0
    """Ids of this attempt that are common to its rows."""
    num_attempts: int = 0
    num_stalls: int = 0
    num_cached_ids: int = 0
    """Of the prompt, at the first attempt."""
    patience: int = 0
    """Steps that a row which ended early still waits for the others."""

    @property
    def num_left(self) -> int:
        return self.request.max_ids - len(self.ids)

    @property
    def prompts(self) -> list[tuple[int, ...]]:
        """What each row reads."""
        return [(*stream, *self.ids) for stream in self.request.streams]

    def take_common(self) -> list[int]:
        """Return the ids that all rows have beyond those taken before."""
        shortest = min(len(row.ids) for row in self.rows)
        new: list[int] = []
        for place in range(self.num_read, shortest):
            id_ = self.rows[0].ids[place]
            if any(row.ids[place] != id_ for row in self.rows):
                break
            allowed = self.request.constraint.at(len(self.ids) + len(new))
            # The withdrawal id is one that may not come.
            if not any(id_ in ids for ids in allowed):
                break
            new.append(id_)
        self.num_read += len(new)
        self.ids += new
        return new


class VllmEngine(AbstractEngine):
    """Runs a checkpoint's decoder in vLLM."""

    def __init__(self, checkpoint: Checkpoint, config: VllmEngineConfig | None = None) -> None:
        """Start vLLM, which takes a while."""
        self.config = config or VllmEngineConfig()
        self._vocab_size = checkpoint.config.vocab_size
        self._context_length = checkpoint.config.context_length
        self._llm, capacity = launch(checkpoint, self.config)
        self._num_threads = torch.get_num_threads()
        self._stepping_thread = threading.get_ident()
        self._admission = Admission(capacity)
        self._waiting: deque[_Flight] = deque()
        self._flights: dict[int, _Flight] = {}
        self._rows: dict[str, tuple[_Flight, _Row]] = {}
        self._parting: dict[int, _Flight] = {}
        self._num_submitted = 0
        self._is_closed = False
        self._counts: Counter[str] = Counter()

    @property
    def context_length(self) -> int:
        return self._context_length

    @property
    def num_unfinished(self) -> int:
        return len(self._waiting) + len(self._flights)

    @property
    def dtype(self) -> torch.dtype:
        """Number format of the decoder."""
        dtype: torch.dtype = self._llm.vllm_config.model_config.dtype
        return dtype

    @property
    def capacity(self) -> Capacity:
        """What vLLM can do, as it was started."""
        return self._admission.capacity

    @property
    def max_streams(self) -> int:
        return min(self.config.num_rows, MAX_STREAMS)

    @property
    def takes_rules(self) -> bool:
        return bool(self._llm.vllm_config.parallel_config.world_size == 1)

    @property
    def stats(self) -> VllmStats:
        """Counts since the start, or since `reset_stats`."""
        now = {"num_waiting": len(self._waiting), "num_running": len(self._flights)}
        return VllmStats(**now, **self._counts)

    @property
    def counters(self) -> Mapping[str, int]:
        return asdict(self.stats)

    def reset_stats(self) -> None:
        """Count from zero again."""
        self._counts = Counter()

    def submit(self, request: SpanRequest) -> int:
        check_request(request, self._vocab_size, self.context_length)
        if request.rule is not None and not self.takes_rules:
            raise EngineError(
                "vLLM's workers in other processes cannot follow a rule; use one worker, or the "
                "torch engine"
            )
        may_withdraw = request.is_guided or request.rule is not None
        flight = _Flight(
            index=self._num_submitted,
            request=request,
            run=None if request.rule is None else RuleRun(request.rule),
            withdrawal_id=withdrawal_id(request.constraint, self._vocab_size)
            if may_withdraw
            else None,
        )
        self._admission.check([len(ids) for ids in flight.prompts], request.max_ids)
        self._num_submitted += 1
        self._count(num_requests=1, num_pairs=int(request.is_guided))
        self._waiting.append(flight)
        return flight.index

    def cancel(self, request_index: int) -> None:
        self._waiting = deque(item for item in self._waiting if item.index != request_index)
        if flight := self._flights.get(request_index):
            self._ground(flight)

    def step(self) -> list[Step]:
        self._enter_thread()
        self._admit()
        if not self._flights:
            return []
        touched = dict(self._parting)
        for output in self._llm.step():
            assert isinstance(output, RequestOutput)
            if found := self._rows.get(output.request_id):
                flight, row = found
                self._take(flight, row, output)
                touched[flight.index] = flight
        return [step for flight in touched.values() for step in self._settle(flight)]

    def close(self) -> None:
        """Cancel what is unfinished and free what vLLM holds."""
        if self._is_closed:
            return
        self._is_closed = True
        for flight in [*self._flights.values()]:
            self._ground(flight)
        self._waiting.clear()
        self._llm.engine_core.shutdown()

    def _enter_thread(self) -> None:
        """Give the thread that steps now as many helpers as the one that started vLLM.

        Each thread has its own count, and vLLM's attention on a CPU dies where two differ.
        """
        if self._stepping_thread != threading.get_ident():
            set_num_threads(self._num_threads)
            self._stepping_thread = threading.get_ident()

    def _admit(self) -> None:
        """Hand waiting requests to vLLM, in order, as far as they fit beside what it has."""
        while self._waiting:
            flight = self._waiting[0]
            if not self._admission.admit(
                flight.index,
                [len(ids) for ids in flight.prompts],
                flight.num_left,
                firm=flight.num_attempts > 0,
            ):
                break
            self._waiting.popleft()
            self._launch(flight)

    def _launch(self, flight: _Flight) -> None:
        """Give vLLM the rows of a request, with the ids it already has as part of the prompt."""
        request, prompts = flight.request, flight.prompts
        name = f"{flight.index}.{flight.num_attempts}"
        params = replace(
            RowParams.of(request, first_step=len(flight.ids)),
            rule=None if flight.run is None else leave_rule(flight.run),
            withdrawal_id=flight.withdrawal_id,
        )
        if len(prompts) > 1:
            params = replace(
                params,
                gang=name,
                num_parts=len(prompts),
                guidance_scale=request.guidance_scale,
                partial_scale=request.partial_scale,
            )
        stop_ids = sorted(request.stop_ids)
        if flight.withdrawal_id is not None:
            stop_ids.append(flight.withdrawal_id)
        flight.rows = [_Row(f"{name}.{place}", prompt) for place, prompt in enumerate(prompts)]
        flight.num_read = 0
        flight.num_attempts += 1
        flight.patience = 2 * self.capacity.num_chunks(max(map(len, prompts))) + PATIENCE
        self._flights[flight.index] = flight
        for place, row in enumerate(flight.rows):
            self._rows[row.name] = flight, row
            self._llm.add_request(
                row.name,
                TokensPrompt(prompt_token_ids=list(row.prompt_ids)),
                VllmSamplingParams(
                    # The choice is made by `GuidedChoice`, which leaves one id.
                    temperature=0.0,
                    max_tokens=flight.num_left,
                    stop_token_ids=stop_ids,
                    ignore_eos=True,
                    detokenize=False,
                    output_kind=RequestOutputKind.DELTA,
                    extra_args=replace(params, part=place).to_extra_args(),
                ),
            )

    def _take(self, flight: _Flight, row: _Row, output: RequestOutput) -> None:
        """Note what vLLM says of a row."""
        if not row.ids:
            num_cached = output.num_cached_tokens or 0
            self._count(num_prompt_tokens=len(row.prompt_ids), num_cached_tokens=num_cached)
            if row is flight.rows[0] and flight.num_attempts == 1:
                flight.num_cached_ids = num_cached
        row.ids += output.outputs[0].token_ids
        row.is_ended = output.finished

    def _settle(self, flight: _Flight) -> list[Step]:
        """Return the step that new ids of a request make, and see to it that it goes on."""
        if all(row.ids for row in flight.rows):
            self._admission.note_started(flight.index)
        request = flight.request
        new = flight.take_common()
        reason: FinishReason | None = None
        if new and new[-1] in request.stop_ids:
            reason = "stop"
        elif not flight.num_left:
            reason = "length"
        error = None
        if reason is not None:
            self._ground(flight)
        elif any(row.is_ended for row in flight.rows):
            error = self._part(flight)
        if not new and error is None:
            return []
        self._count(num_ids=len(new))
        return [
            Step(
                request_index=flight.index,
                ids=tuple(new),
                finish_reason=reason,
                guidance_scale=request.guidance_scale,
                error=error,
                num_restarts=flight.num_attempts - 1,
                num_cached_ids=flight.num_cached_ids,
                partial_scale=request.applied_partial_scale,
            )
        ]

    def _part(self, flight: _Flight) -> EngineError | None:
        """Restart a request whose rows came apart; return why it cannot go on, if so."""
        if flight.run is not None and flight.run.is_stuck:
            self._ground(flight)
            self._count(num_failed=1)
            return stuck_error(len(flight.ids))
        has_open_row = not all(row.is_ended for row in flight.rows)
        if self.config.prefix_caching and has_open_row and flight.patience:
            # The others will notice when they have read their prompts, which then are in the prefix
            # cache: at the next attempt, none has much to read, and all start together.
            flight.patience -= 1
            self._parting[flight.index] = flight
            return None
        self._ground(flight)
        self._count(num_restarts=1)
        flight.num_stalls = 0 if flight.num_read else flight.num_stalls + 1
        if flight.num_stalls > self.config.max_stalls:
            self._count(num_failed=1)
            return EngineError(
                f"the {len(flight.rows)} rows of a guided request could not be kept in step after "
                f"{flight.num_stalls} attempts; give vLLM a larger cache or more tokens per step"
            )
        self._waiting.appendleft(flight)
        return None

    def _ground(self, flight: _Flight) -> None:
        """Take a request back from vLLM, wherever it stands."""
        unfinished = [row.name for row in flight.rows if not row.is_ended]
        if unfinished:
            self._llm.abort_request(unfinished)
        for row in flight.rows:
            self._rows.pop(row.name, None)
        self._flights.pop(flight.index, None)
        self._parting.pop(flight.index, None)
        self._admission.release(flight.index)

    def _count(self, **added: int) -> None:
        self._counts.update(added)
