from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from mmgen.errors import EngineError, SettingsError
from mmgen.generate.engine import (
    AbstractRule,
    AbstractRuleState,
    Constraint,
    SamplingParams,
    SpanRequest,
)
from mmgen.generate.rule_runs import RuleRun
from mmgen.generate.sampling import SamplingRows, guide, sample
from mmgen.generate.vllm_rows import RowChooser, RowParams, has_rule, leave_rule, withdrawal_id

SIZE = 64
WITHDRAWAL = 3
CODES = Constraint(((range(20, 60),),))
TEXT = Constraint(((range(0, 10), range(15, 17)),))
TURNS = Constraint(((range(20, 30),), (range(40, 44),), (range(50, 60),)))


def guided(gang: str, *, is_blank: bool = False, seed: int = 1) -> RowParams:
    return RowParams(
        constraint=CODES,
        sampling=SamplingParams(temperature=0.9, top_k=12),
        seed=seed,
        gang=gang,
        part=int(is_blank),
        num_parts=2,
        guidance_scale=2.5,
        withdrawal_id=WITHDRAWAL,
    )


def alone(constraint: Constraint = TEXT, *, seed: int = 5, first_step: int = 0) -> RowParams:
    return RowParams(
        constraint=constraint, sampling=SamplingParams(), seed=seed, first_step=first_step
    )


def scores(rows: int) -> torch.Tensor:
    return torch.randn(rows, SIZE, generator=torch.Generator().manual_seed(rows)) * 3


def applied(
    rows: Sequence[RowParams | None], counts: Sequence[int], is_ready: Sequence[bool] | None = None
) -> list[int | None]:
    """Return the one id left to each row; None for a row that was not touched."""
    chooser = RowChooser("cpu")
    chooser.seat(rows)
    logits = scores(len(rows))
    before = logits.clone()
    ready = None if is_ready is None else np.array(is_ready)
    chooser.apply(logits, np.array(counts), ready)
    found: list[int | None] = []
    for row, old in zip(logits, before, strict=True):
        (left,) = torch.nonzero(row > -torch.inf, as_tuple=True)
        if len(left) == SIZE:
            assert torch.equal(row, old)
            found.append(None)
        else:
            assert len(left) == 1
            found.append(int(left))
    return found


def expected(row: RowParams, step: int, place: int, mate: int, num_rows: int) -> int:
    logits = scores(num_rows)
    ids = torch.cat([torch.arange(r.start, r.stop) for r in row.constraint.at(step)])
    chosen = logits[[place]][:, ids]
    if mate != place:
        chosen = guide(chosen, logits[[mate]][:, ids], torch.tensor([[row.guidance_scale]]))
    rows = SamplingRows.stack([row.sampling], [row.seed])
    return int(sample(chosen, ids, torch.tensor([[step]]), rows))


def test_what_a_row_needs_survives_its_way_through_json() -> None:
    for row in (guided("7.0", is_blank=True), alone(TURNS, first_step=4)):
        sent = json.loads(json.dumps(row.to_extra_args()))
        assert RowParams.from_extra_args(sent) == row


def test_requests_of_others_are_nothing_to_us() -> None:
    assert RowParams.from_extra_args(None) is None
    assert RowParams.from_extra_args({"theirs": 1}) is None


@pytest.mark.parametrize("damage", [{"cycle": [[[0]], 3]}, {"seed": 1}, {"sampling": [-1, 0, 0]}])
def test_damaged_arguments_are_refused(damage: dict[str, object]) -> None:
    fields = alone().to_extra_args()["mmgen"] | damage
    if "seed" in damage:
        del fields["cycle"]
    with pytest.raises(SettingsError, match="cannot be used"):
        RowParams.from_extra_args({"mmgen": fields})


def test_a_pair_is_guided_and_both_rows_get_the_id() -> None:
    rows = [guided("a"), alone(), None, guided("b"), guided("a", is_blank=True)]
    rows.append(replace(guided("b", is_blank=True), seed=99))
    found = applied(rows, [3, 8, 0, 5, 3, 5])
    first, second = rows[0], rows[3]
    assert first is not None and second is not None and rows[1] is not None
    assert found[0] == found[4] == expected(first, 3, 0, 4, 6)
    assert found[3] == found[5] == expected(second, 5, 3, 5, 6)
    assert found[1] == expected(rows[1], 8, 1, 1, 6)
    assert found[2] is None
    assert found[0] != expected(first, 3, 0, 0, 6)


def test_where_a_pair_sits_makes_no_difference() -> None:
    rows = [guided("a", is_blank=True), guided("a")]
    assert applied(rows, [2, 2])[0] == expected(guided("a"), 2, 1, 0, 2)


def test_ids_of_earlier_attempts_count_as_steps() -> None:
    late = alone(TURNS, first_step=4)
    assert applied([late], [1]) == [expected(late, 5, 0, 0, 1)]
    assert applied([late], [1])[0] in range(50, 60)


def test_rows_in_other_phases_of_their_cycles_are_decided_together() -> None:
    rows = [alone(TURNS, seed=seed) for seed in range(6)]
    counts = [0, 1, 2, 3, 4, 5]
    found = applied(rows, counts)
    assert found == [expected(row, counts[n], n, n, 6) for n, row in enumerate(rows)]


@pytest.mark.parametrize(
    ("rows", "counts"),
    [
        ([guided("a"), guided("a", is_blank=True)], [4, 5]),
        ([guided("a"), alone()], [4, 4]),
        ([guided("a", is_blank=True)], [0]),
        ([guided("a"), guided("b", is_blank=True)], [1, 1]),
    ],
)
def test_half_a_pair_is_never_drawn_from(rows: list[RowParams], counts: list[int]) -> None:
    for row, id_ in zip(rows, applied(rows, counts), strict=True):
        if row.gang is not None:
            assert id_ == WITHDRAWAL


def test_a_half_that_still_reads_its_prompt_does_not_count() -> None:
    rows = [guided("a"), guided("a", is_blank=True)]
    assert applied(rows, [0, 0], [True, False]) == [WITHDRAWAL, WITHDRAWAL]
    chosen = expected(rows[0], 0, 0, 1, 2)
    assert applied(rows, [0, 0], [True, True]) == [chosen, chosen]


def test_a_chooser_follows_its_rows_over_steps_and_changes() -> None:
    chooser = RowChooser("cpu")
    pair = [guided("a"), guided("a", is_blank=True)]
    for rows, counts in [
        (pair, [0, 0]),
        (pair, [1, 1]),
        (pair, [2, 3]),
        ([*pair[::-1], alone()], [2, 2, 0]),
        ([alone()], [1]),
        ([], []),
    ]:
        chooser.seat(rows)
        logits = scores(len(rows))
        chooser.apply(logits, np.array(counts, np.int64))
        found = [int(torch.nonzero(row > -torch.inf)) for row in logits]
        assert found == applied(rows, counts)


def test_the_withdrawal_id_is_one_that_never_comes() -> None:
    assert withdrawal_id(CODES, SIZE) == 0
    assert withdrawal_id(TEXT, SIZE) == 10
    overlapping = Constraint(((range(0, 9),), (range(5, 12), range(12, 20))))
    assert withdrawal_id(overlapping, SIZE) == 20
    assert withdrawal_id(Constraint(((range(0, 63),),)), SIZE) == 63
    with pytest.raises(EngineError, match="leave out one of the decoder's 64 ids"):
        withdrawal_id(Constraint(((range(0, 40), range(40, 64)),)), SIZE)


def test_the_params_of_a_request_are_its_own() -> None:
    request = SpanRequest(prompt_ids=(1,), constraint=CODES, max_ids=4, seed=8)
    row = RowParams.of(request, first_step=2)
    assert (row.seed, row.constraint, row.first_step, row.gang) == (8, CODES, 2, None)


class Ladder(AbstractRule):
    """After each id one that is larger by one, two or three, up to a limit."""

    def __init__(self, first: int, limit: int) -> None:
        self.first, self.limit = first, limit

    def begin(self) -> AbstractRuleState:
        return Rung(self.first, self.limit)


class Rung(AbstractRuleState):
    def __init__(self, place: int, limit: int) -> None:
        self.place, self.limit = place, limit

    def allowed(self) -> np.ndarray:
        ids = np.arange(self.limit)
        return (ids > self.place) & (ids <= self.place + 3)

    def advance(self, id_: int) -> None:
        assert self.allowed()[id_]
        self.place = id_


def test_a_rule_narrows_its_row_and_no_other() -> None:
    run = RuleRun(Ladder(20, 60))
    ruled = replace(alone(CODES), rule=leave_rule(run), withdrawal_id=WITHDRAWAL)
    free = alone(CODES)
    (first, beside) = applied([ruled, free], [0, 0])
    assert first in range(21, 24) and beside == expected(free, 0, 1, 1, 2)
    (second, _) = applied([ruled, free], [1, 7])
    assert first is not None and second in range(first + 1, first + 4)
    # What is drawn again for a step replaces what was drawn before, and what follows from it.
    assert applied([ruled, free], [0, 0])[0] == first
    assert applied([ruled, free], [1, 1])[0] == second


def test_a_rule_that_leaves_nothing_withdraws_its_row_alone() -> None:
    run = RuleRun(Ladder(5, 15))
    ruled = replace(alone(CODES), rule=leave_rule(run), withdrawal_id=WITHDRAWAL)
    free = alone(CODES)
    assert applied([ruled, free], [0, 0]) == [WITHDRAWAL, expected(free, 0, 1, 1, 2)]
    assert run.is_stuck


def test_a_rule_is_known_while_somebody_keeps_its_run() -> None:
    run = RuleRun(Ladder(20, 60))
    key = leave_rule(run)
    assert has_rule(key) and leave_rule(run) != key
    del run
    assert not has_rule(key)
    assert applied([replace(alone(CODES), rule=key, withdrawal_id=WITHDRAWAL)], [0]) == [WITHDRAWAL]
