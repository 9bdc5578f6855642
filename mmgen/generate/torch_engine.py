"""The embedded engine: continuous batching over a static KV cache, on a CPU or one GPU.

Every request has one cache row, or two or three when it is guided: one sees the prompt, the others
its blanked forms, and all take the same ids. Running rows stay at the front of the cache, so that a
step reads it in place. A step chooses an id for every running request, retires the finished, and
runs the decoder once over the rest; waiting requests are admitted as rows become free.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch

from mmgen.errors import EngineError, SettingsError
from mmgen.generate.engine import (
    MAX_STREAMS,
    AbstractEngine,
    AbstractRuleState,
    FinishReason,
    SpanRequest,
    Step,
    check_request,
)
from mmgen.generate.kv_rows import KVRows
from mmgen.generate.rule_runs import excluded, stuck_error
from mmgen.generate.sampling import GuidanceRows, SamplingRows, sample
from mmgen.model import Decoder
from mmgen.model.layers import product

__all__ = ["TorchEngine"]


@dataclass(slots=True, eq=False)
class _Running:
    """A request that has rows in the cache."""

    index: int
    request: SpanRequest
    rows: list[int]
    """A row for each of the request's streams, in their order."""
    rule: AbstractRuleState | None = None
    num_ids: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class _Head:
    """The part of the output layer that scores some ids."""

    weights: tuple[torch.Tensor, ...]
    ids: torch.Tensor

    def scores(self, hidden: torch.Tensor) -> torch.Tensor:
        hidden = hidden.to(self.weights[0].dtype)
        parts = [product(hidden, weight) for weight in self.weights]
        scores = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        # Noise lies by rows, and scores are added to it faster if they do as well.
        return scores.float().contiguous()


@dataclass(frozen=True, slots=True, eq=False)
class _Group:
    """Running requests that choose among the same ids."""

    members: list[_Running]
    head: _Head
    rows: torch.Tensor
    guidance: GuidanceRows | None
    """None if no member is guided."""
    steps: torch.Tensor
    sampling: SamplingRows
    rules: tuple[tuple[int, AbstractRuleState], ...]
    """Places of the members that have a rule, and how far each has come."""

    def choose(self, hidden: torch.Tensor) -> dict[int, int]:
        """Return the next id of every member by its request's index, and count the step.

        Scores are a linear image of hidden states, so guidance is applied to the latter, which
        are few numbers. A member whose rule allows nothing is left out.
        """
        guided = hidden[self.rows]
        if self.guidance is not None:
            guided = self.guidance.lead(guided.float(), lambda rows: hidden[rows].float())
        scores = self.head.scores(guided)
        stuck: list[int] = []
        for place, rule in self.rules:
            barred = excluded(self.head.ids, rule.allowed())
            if barred is None:
                stuck.append(self.members[place].index)
            else:
                scores[place].masked_fill_(barred, -torch.inf)
        chosen = sample(scores, self.head.ids, self.steps, self.sampling)
        self.steps.add_(1)
        ids = dict(zip((member.index for member in self.members), chosen.tolist(), strict=True))
        for index in stuck:
            del ids[index]
        return ids


@dataclass(slots=True, eq=False)
class _Batch:
    """What runs, in order of admission, and its division into groups while that holds."""

    running: list[_Running] = field(default_factory=list)
    groups: list[_Group] | None = None


class TorchEngine(AbstractEngine):
    """Runs a decoder whose weights stay as they are for the engine's life."""

    def __init__(
        self, decoder: Decoder, *, num_rows: int = 64, max_prefill_ids: int = 4096
    ) -> None:
        """Take a decoder where it is: its device and number format are the engine's.

        Args:
            num_rows: most rows that run at once; a guided request takes two, or three where the
                parts of its condition are guided apart.
            max_prefill_ids: most prompt ids, filling included, in one pass of the decoder.
        """
        if num_rows < 2:
            raise SettingsError(f"num_rows must be 2 or more, for guidance, got {num_rows}")
        self.decoder = decoder
        self._num_rows = num_rows
        self._cache = KVRows(decoder, max_prefill_ids=max_prefill_ids)
        self._device = decoder.embedding.weight.device
        self._hidden = torch.empty(0, decoder.config.hidden_size, device=self._device)
        self._waiting: deque[tuple[int, SpanRequest]] = deque()
        self._batch = _Batch()
        self._heads: dict[tuple[range, ...], _Head] = {}
        self._num_submitted = 0

    @property
    def context_length(self) -> int:
        return self.decoder.config.context_length

    @property
    def num_unfinished(self) -> int:
        return len(self._waiting) + len(self._batch.running)

    @property
    def max_streams(self) -> int:
        return min(self._num_rows, MAX_STREAMS)

    @property
    def takes_rules(self) -> bool:
        return True

    @property
    def counters(self) -> Mapping[str, int]:
        return {"num_waiting": len(self._waiting), "num_running": len(self._batch.running)}

    def submit(self, request: SpanRequest) -> int:
        check_request(request, self.decoder.config.vocab_size, self.context_length)
        num_streams = len(request.streams)
        if num_streams > self._num_rows:
            raise EngineError(
                f"a request of this guidance takes {num_streams} rows, but the engine has "
                f"{self._num_rows}; give it more"
            )
        index = self._num_submitted
        self._num_submitted += 1
        self._waiting.append((index, request))
        return index

    def cancel(self, request_index: int) -> None:
        self._waiting = deque(item for item in self._waiting if item[0] != request_index)
        gone = {item.index for item in self._batch.running if item.index == request_index}
        if gone:
            with torch.inference_mode():
                self._retire(gone)

    @torch.inference_mode()
    def step(self) -> list[Step]:
        self._admit()
        if not self._batch.running:
            return []
        chosen = self._choose()
        steps = [
            self._deliver(running, chosen.get(running.index)) for running in self._batch.running
        ]
        finished = {step.request_index for step in steps if step.is_finished}
        if finished:
            self._retire(finished)
        self._advance(chosen)
        return steps

    def _admit(self) -> None:
        """Give free rows to waiting requests and read their prompts into the cache."""
        admitted: list[_Running] = []
        prompts: list[list[int]] = []
        num_used = self._num_used
        while self._waiting:
            index, request = self._waiting[0]
            streams = list(map(list, request.streams))
            if num_used + len(prompts) + len(streams) > self._num_rows:
                break
            self._waiting.popleft()
            numbers = range(len(prompts), len(prompts) + len(streams))
            rule = None if request.rule is None else request.rule.begin()
            admitted.append(_Running(index, request, list(numbers), rule))
            prompts += streams
        if not admitted:
            return
        rows, hidden = self._cache.read_prompts(prompts, num_used)
        for running in admitted:
            running.rows = [rows[number] for number in running.rows]
        self._hidden = torch.cat([self._hidden.to(hidden.dtype), hidden])
        self._batch = _Batch(self._batch.running + admitted)

    @property
    def _num_used(self) -> int:
        return sum(len(running.rows) for running in self._batch.running)

    def _choose(self) -> dict[int, int]:
        """Return the next id of every running request by its index, where its rule allows one."""
        if self._batch.groups is None:
            self._batch.groups = self._grouped(self._batch.running)
        chosen: dict[int, int] = {}
        for group in self._batch.groups:
            chosen |= group.choose(self._hidden)
        if any(len(running.request.constraint.cycle) > 1 for running in self._batch.running):
            self._batch.groups = None
        return chosen

    def _grouped(self, running: Iterable[_Running]) -> list[_Group]:
        members: dict[tuple[range, ...], list[_Running]] = {}
        for item in running:
            members.setdefault(item.request.constraint.at(item.num_ids), []).append(item)
        return [self._group(ranges, items) for ranges, items in members.items()]

    def _group(self, ranges: tuple[range, ...], members: list[_Running]) -> _Group:
        device = self._device
        requests = [item.request for item in members]
        return _Group(
            members=members,
            head=self._head(ranges),
            rows=torch.tensor([item.rows[0] for item in members], device=device),
            guidance=GuidanceRows.stack(
                [item.rows for item in members],
                [request.guidance_scale for request in requests],
                [request.partial_scale for request in requests],
                device,
            ),
            steps=torch.tensor([item.num_ids for item in members], device=device).unsqueeze(1),
            sampling=SamplingRows.stack(
                [request.sampling for request in requests],
                [request.seed for request in requests],
                device,
            ),
            rules=tuple(
                (place, item.rule) for place, item in enumerate(members) if item.rule is not None
            ),
        )

    def _head(self, ranges: tuple[range, ...]) -> _Head:
        if ranges not in self._heads:
            table = self.decoder.head.weight
            ids = [torch.arange(ids.start, ids.stop, device=self._device) for ids in ranges]
            self._heads[ranges] = _Head(
                tuple(table[ids.start : ids.stop] for ids in ranges), torch.cat(ids)
            )
        return self._heads[ranges]

    @staticmethod
    def _deliver(running: _Running, id_: int | None) -> Step:
        request = running.request
        partial_scale = request.applied_partial_scale
        if id_ is None:
            error = stuck_error(running.num_ids)
            return Step(
                running.index,
                (),
                None,
                request.guidance_scale,
                error,
                partial_scale=partial_scale,
            )
        running.num_ids += 1
        if running.rule is not None:
            running.rule.advance(id_)
        reason: FinishReason | None = None
        if id_ in request.stop_ids:
            reason = "stop"
        elif running.num_ids == request.max_ids:
            reason = "length"
        return Step(
            running.index, (id_,), reason, request.guidance_scale, partial_scale=partial_scale
        )

    def _retire(self, finished: set[int]) -> None:
        """Drop requests, and move the rows that stay to the front of the cache."""
        staying = [item for item in self._batch.running if item.index not in finished]
        kept = sorted(row for item in staying for row in item.rows)
        holes = sorted(set(range(len(kept))) - set(kept))
        movers = [row for row in kept if row >= len(kept)]
        moves = dict(zip(movers, holes, strict=True))
        for source, target in moves.items():
            self._cache.move(source, target)
        for item in staying:
            item.rows = [moves.get(row, row) for row in item.rows]
        back = {target: source for source, target in moves.items()}
        order = [back.get(row, row) for row in range(len(kept))]
        self._hidden = self._hidden[torch.tensor(order, dtype=torch.long, device=self._device)]
        self._batch = _Batch(staying)

    def _advance(self, chosen: dict[int, int]) -> None:
        """Run the decoder over the ids just chosen."""
        running = self._batch.running
        if running:
            ids = [0] * self._num_used
            for item in running:
                for row in item.rows:
                    ids[row] = chosen[item.index]
            self._hidden = self._cache.extend(ids)
