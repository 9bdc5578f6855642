"""What happens to the scores of a vLLM batch: constraint, guidance and choice, row by row.

A guided request is a gang: two or three rows of the batch that carry one key. Each step chooses an
id for every row with the functions and the noise that the embedded engine uses, and leaves that id
as the only one the row may take. Rows of a gang that have not come equally far are given their
withdrawal id instead, which ends them: nothing is ever drawn with a part of a gang.

Nothing here knows vLLM. What a row needs travels in its request as plain numbers, so that it also
reaches workers in other processes. Only the run of a rule cannot travel; it is left here under a
key, which works where the rows are decided in the process that has the rule.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Self
from weakref import WeakValueDictionary

import numpy as np
import torch

from mmgen.errors import EngineError, SettingsError
from mmgen.generate.engine import Constraint, SamplingParams, SpanRequest
from mmgen.generate.rule_runs import RuleRun
from mmgen.generate.sampling import GuidanceRows, SamplingRows, sample

__all__ = ["KEY", "RowChooser", "RowParams", "has_rule", "leave_rule", "withdrawal_id"]

KEY = "mmgen"
"""Where a request's extra arguments hold what its row needs."""

MAX_PLANS = 256
"""Divisions of one batch that are kept; a constraint's cycle has one for every phase."""

_rule_keys = map("rule {}".format, count())
_rule_runs: WeakValueDictionary[str, RuleRun] = WeakValueDictionary()


def leave_rule(run: RuleRun) -> str:
    """Return a key by which rows of this process find the run of a rule while somebody keeps it."""
    key = next(_rule_keys)
    _rule_runs[key] = run
    return key


def has_rule(key: str) -> bool:
    """Return whether the run of a rule is here."""
    return key in _rule_runs


@dataclass(frozen=True, slots=True, kw_only=True)
class RowParams:
    """How ids are chosen for one row."""

    constraint: Constraint
    """Which ids may come at each step of the span."""
    sampling: SamplingParams
    """How ids are chosen."""
    seed: int
    """What the noise is drawn from."""
    first_step: int = 0
    """Ids of the span that are already part of the prompt."""
    gang: str | None = None
    """Names the rows of one guided request; None for a request without guidance."""
    part: int = 0
    """Which of the request's streams the row sees; 0 is the prompt."""
    num_parts: int = 1
    """Rows of the gang."""
    guidance_scale: float = 1.0
    """How strongly the condition counts in a gang."""
    partial_scale: float = 1.0
    """How strongly its part counts that the second of three rows keeps."""
    withdrawal_id: int | None = None
    """What a row is given that cannot go on, of a broken gang or under a rule that leaves nothing;
    an id that no step allows."""
    rule: str | None = None
    """What `leave_rule` returned; None for a request without a rule."""

    @classmethod
    def of(cls, request: SpanRequest, *, first_step: int = 0) -> Self:
        """Return what the row of a request without guidance needs, some ids into its span."""
        return cls(
            constraint=request.constraint,
            sampling=request.sampling,
            seed=request.seed,
            first_step=first_step,
        )

    def to_extra_args(self) -> dict[str, Any]:
        """Return the extra arguments of a request, of lists, numbers and strings only."""
        cycle = [[[ids.start, ids.stop] for ids in choice] for choice in self.constraint.cycle]
        sampling = self.sampling
        return {
            KEY: {
                "cycle": cycle,
                "sampling": [sampling.temperature, sampling.top_k, sampling.top_p],
                "seed": self.seed,
                "first_step": self.first_step,
                "gang": self.gang,
                "part": self.part,
                "num_parts": self.num_parts,
                "guidance_scale": self.guidance_scale,
                "partial_scale": self.partial_scale,
                "withdrawal_id": self.withdrawal_id,
                "rule": self.rule,
            }
        }

    @classmethod
    def from_extra_args(cls, extra_args: Mapping[str, Any] | None) -> Self | None:
        """Return what `to_extra_args` wrote; None for a request that is not of mmgen.

        Raises:
            SettingsError: the arguments are damaged.
        """
        if not extra_args or KEY not in extra_args:
            return None
        try:
            fields = dict(extra_args[KEY])
            cycle = fields.pop("cycle")
            choices = (tuple(range(*bounds) for bounds in choice) for choice in cycle)
            temperature, top_k, top_p = fields.pop("sampling")
            return cls(
                constraint=Constraint(tuple(choices)),
                sampling=SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p),
                **fields,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise SettingsError(f"the arguments under {KEY!r} cannot be used: {error}") from error


def withdrawal_id(constraint: Constraint, vocab_size: int) -> int:
    """Return the smallest id that no step allows.

    Raises:
        EngineError: there is none.
    """
    ranges = sorted(
        {ids for choice in constraint.cycle for ids in choice if ids},
        key=lambda ids: (ids.start, ids.stop),
    )
    free = 0
    for ids in ranges:
        if ids.start > free:
            break
        free = max(free, ids.stop)
    if free >= vocab_size:
        raise EngineError(
            f"a guided request, and one with a rule, must leave out one of the decoder's "
            f"{vocab_size} ids, by which vLLM is told that it cannot go on; this one allows all"
        )
    return free


@dataclass(frozen=True, slots=True, eq=False)
class _Ruled:
    """A member of a group that has a rule."""

    place: int
    run: RuleRun
    withdrawal_id: int


@dataclass(frozen=True, slots=True, eq=False)
class _Group:
    """Rows that choose among the same ids; a gang is here once, with its prompt's row."""

    ranges: tuple[range, ...]
    ids: torch.Tensor
    numbers: np.ndarray
    """The rows, on the host."""
    first_steps: np.ndarray
    rows: torch.Tensor
    guidance: GuidanceRows | None
    """None if no row is guided."""
    sampling: SamplingRows
    ruled: tuple[_Ruled, ...]

    def choose(self, logits: torch.Tensor, counts: np.ndarray) -> torch.Tensor:
        scores = self._scores(logits, self.rows)
        if self.guidance is not None:
            scores = self.guidance.lead(scores, lambda rows: self._scores(logits, rows))
        numbers = self.first_steps + counts[self.numbers]
        for ruled in self.ruled:
            barred = ruled.run.excluded(self.ids, int(numbers[ruled.place]))
            if barred is not None:
                scores[ruled.place].masked_fill_(barred, -torch.inf)
        steps = torch.from_numpy(numbers).unsqueeze(1).to(logits.device, non_blocking=True)
        chosen = sample(scores, self.ids, steps, self.sampling)
        for ruled in self.ruled:
            if ruled.run.is_stuck:
                chosen[ruled.place] = ruled.withdrawal_id
            else:
                ruled.run.take(int(numbers[ruled.place]), int(chosen[ruled.place]))
        return chosen

    def _scores(self, logits: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        parts = [logits[:, ids.start : ids.stop].index_select(0, rows) for ids in self.ranges]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


@dataclass(frozen=True, slots=True, eq=False)
class _Plan:
    """One division of the batch, good until rows come, go, or move apart."""

    groups: list[_Group]
    rows: torch.Tensor
    """All rows that are decided here."""
    withdrawn_rows: torch.Tensor | None
    withdrawal_ids: torch.Tensor | None

    def apply(self, logits: torch.Tensor, counts: np.ndarray) -> None:
        chosen = [group.choose(logits, counts) for group in self.groups]
        logits.index_fill_(0, self.rows, -torch.inf)
        for group, ids in zip(self.groups, chosen, strict=True):
            logits[group.rows, ids] = 0.0
            if group.guidance is not None:
                for rows in group.guidance.rows:
                    logits[rows, ids] = 0.0
        if self.withdrawn_rows is not None:
            logits[self.withdrawn_rows, self.withdrawal_ids] = 0.0


class RowChooser:
    """Decides the ids of a batch's rows; told who sits where, and how far each has come."""

    def __init__(self, device: torch.device | str) -> None:
        self._device = device
        self._rows: list[RowParams | None] = []
        self._cycles = np.ones(0, dtype=np.int64)
        self._first_steps = np.zeros(0, dtype=np.int64)
        self._gangs: dict[int, list[int]] = {}
        self._mates = np.zeros((0, 0), dtype=np.int64)
        self._is_whole = np.zeros(0, dtype=bool)
        self._plans: dict[tuple[bytes, bytes], _Plan] = {}

    def seat(self, rows: Sequence[RowParams | None]) -> None:
        """Take note of who sits in each row of the batch; None for rows of others."""
        self._rows = list(rows)
        self._plans.clear()
        self._cycles = np.array([len(row.constraint.cycle) if row else 1 for row in rows], np.int64)
        self._first_steps = np.array([row.first_step if row else 0 for row in rows], np.int64)
        found: dict[str, list[int]] = {}
        for place, row in enumerate(rows):
            if row is not None and row.gang is not None:
                found.setdefault(row.gang, []).append(place)
        # A row that has fewer mates than others, or none, is its own.
        most = max(map(len, found.values()), default=1)
        self._mates = np.tile(np.arange(len(rows)), (most - 1, 1))
        self._is_whole = np.ones(len(rows), dtype=bool)
        self._gangs.clear()
        for places in found.values():
            gang = {row.part: place for place in places if (row := rows[place])}
            num_parts = {row.num_parts for place in places if (row := rows[place])}
            if len(gang) != len(places) or num_parts != {len(gang)} or max(gang) >= len(gang):
                self._is_whole[places] = False
                continue
            self._gangs[gang[0]] = [gang[part] for part in range(len(gang))]
            for turn in range(1, len(places)):
                self._mates[turn - 1, places] = places[turn:] + places[:turn]

    def apply(
        self, logits: torch.Tensor, counts: np.ndarray, is_ready: np.ndarray | None = None
    ) -> None:
        """Leave each row one id to take.

        Args:
            logits: float32 `[rows, ids]`; changed in place.
            counts: int64 `[rows]`, ids that vLLM has accepted for each row.
            is_ready: bool `[rows]`, whether a row has read its whole prompt; where that is not
                known, all count as ready, and what an unready row is given is thrown away.
        """
        in_step = self._is_whole
        for mates in self._mates:
            in_step = in_step & (counts == counts[mates])
            if is_ready is not None:
                in_step &= is_ready == is_ready[mates]
        phases = (self._first_steps + counts) % self._cycles
        key = (phases.tobytes(), in_step.tobytes())
        plan = self._plans.get(key)
        if plan is None:
            if len(self._plans) == MAX_PLANS:
                self._plans.clear()
            plan = self._plans[key] = self._plan(phases, in_step)
        if len(plan.rows):
            plan.apply(logits, counts)

    def _plan(self, phases: np.ndarray, in_step: np.ndarray) -> _Plan:
        groups: dict[tuple[range, ...], list[int]] = {}
        decided: list[int] = []
        withdrawn: list[int] = []
        for place, row in enumerate(self._rows):
            if row is None:
                continue
            decided.append(place)
            # Whoever asked under a rule that is gone has left, and its row is about to.
            if not in_step[place] or (row.rule is not None and not has_rule(row.rule)):
                withdrawn.append(place)
            elif row.part == 0:
                ranges = row.constraint.cycle[phases[place]]
                groups.setdefault(ranges, []).append(place)
        ids = [row.withdrawal_id for place in withdrawn if (row := self._rows[place])]
        return _Plan(
            groups=[self._group(ranges, places) for ranges, places in groups.items()],
            rows=self._tensor(decided),
            withdrawn_rows=self._tensor(withdrawn) if withdrawn else None,
            withdrawal_ids=self._tensor(ids) if withdrawn else None,
        )

    def _group(self, ranges: tuple[range, ...], places: list[int]) -> _Group:
        members = [row for place in places if (row := self._rows[place])]
        return _Group(
            ranges=ranges,
            ids=torch.cat([torch.arange(ids.start, ids.stop) for ids in ranges]).to(self._device),
            numbers=np.array(places),
            first_steps=self._first_steps[places],
            rows=self._tensor(places),
            guidance=GuidanceRows.stack(
                [self._gangs.get(place, [place]) for place in places],
                [row.guidance_scale for row in members],
                [row.partial_scale for row in members],
                self._device,
            ),
            sampling=SamplingRows.stack(
                [row.sampling for row in members], [row.seed for row in members], self._device
            ),
            ruled=tuple(
                _Ruled(place, _rule_runs[row.rule], row.withdrawal_id)
                for place, row in enumerate(members)
                if row.rule is not None and row.withdrawal_id is not None
            ),
        )

    def _tensor(self, values: Sequence[int | None]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.int64, device=self._device)
