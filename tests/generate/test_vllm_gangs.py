"""Rows of vLLM that are guided three at a time, among pairs, single rows and rows of others."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmgen.generate.engine import Constraint, SamplingParams
from mmgen.generate.sampling import SamplingRows, guide, guide_apart, sample
from mmgen.generate.vllm_rows import RowChooser, RowParams

SIZE = 64
WITHDRAWAL = 3
CODES = Constraint(((range(20, 60),),))
TEXT = Constraint(((range(0, 3), range(15, 17)),))


def gang(key: str, num_parts: int, *, seed: int = 1) -> list[RowParams]:
    """Return the rows of one request, its prompt's first."""
    row = RowParams(
        constraint=CODES,
        sampling=SamplingParams(temperature=0.9, top_k=12),
        seed=seed,
        gang=key,
        num_parts=num_parts,
        guidance_scale=2.5,
        partial_scale=1.5 if num_parts > 2 else 1.0,
        withdrawal_id=WITHDRAWAL,
    )
    return [replace(row, part=part) for part in range(num_parts)]


def alone(seed: int = 5) -> RowParams:
    return RowParams(constraint=TEXT, sampling=SamplingParams(), seed=seed)


def scores(rows: int) -> torch.Tensor:
    return torch.randn(rows, SIZE, generator=torch.Generator().manual_seed(rows)) * 3


def applied(
    rows: Sequence[RowParams | None], counts: Sequence[int], is_ready: Sequence[bool] | None = None
) -> list[int]:
    """Return the one id left to each row."""
    chooser = RowChooser("cpu")
    chooser.seat(rows)
    logits = scores(len(rows))
    chooser.apply(logits, np.array(counts), None if is_ready is None else np.array(is_ready))
    return [int(torch.nonzero(row > -torch.inf)) for row in logits]


def expected(row: RowParams, step: int, places: Sequence[int], num_rows: int) -> int:
    """Return what a request draws whose rows sit in some places, in the order of their parts."""
    logits = scores(num_rows)
    ids = torch.cat([torch.arange(r.start, r.stop) for r in row.constraint.at(step)])
    read = [logits[[place]][:, ids] for place in places]
    scale, part = torch.tensor([[row.guidance_scale]]), torch.tensor([[row.partial_scale]])
    match read:
        case [whole]:
            chosen = whole
        case [whole, blank]:
            chosen = guide(whole, blank, scale)
        case [whole, kept, blank]:
            chosen = guide_apart(whole, kept, blank, part, scale)
    settings = SamplingRows.stack([row.sampling], [row.seed])
    return int(sample(chosen, ids, torch.tensor([[step]]), settings))


def test_what_a_row_of_a_gang_needs_survives_its_way_through_json() -> None:
    for row in gang("7.0", 3):
        assert RowParams.from_extra_args(json.loads(json.dumps(row.to_extra_args()))) == row


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(1, 3), min_size=1, max_size=7),
    st.randoms(use_true_random=False),
    st.lists(st.integers(0, 9), min_size=7, max_size=7),
)
def test_wherever_rows_sit_each_request_draws_what_is_its_own(
    sizes: list[int], random: object, steps: list[int]
) -> None:
    seated: list[tuple[int, RowParams]] = []
    for number, size in enumerate(sizes):
        rows = gang(str(number), size, seed=number) if size > 1 else [alone(number)]
        seated += [(number, row) for row in rows]
    random.shuffle(seated)  # type: ignore[attr-defined]
    found = applied([row for _, row in seated], [steps[number] for number, _ in seated])
    for number, size in enumerate(sizes):
        places = {row.part: place for place, (of, row) in enumerate(seated) if of == number}
        prompt = seated[places[0]][1]
        wanted = expected(
            prompt, steps[number], [places[part] for part in range(size)], len(seated)
        )
        assert {found[place] for place in places.values()} == {wanted}


@pytest.mark.parametrize(
    ("parts", "counts", "is_ready"),
    [
        ((0, 1), (4, 4), None),
        ((0, 2), (4, 4), None),
        ((1, 2), (4, 4), None),
        ((2,), (0,), None),
        ((0, 1, 2), (4, 4, 5), None),
        ((0, 1, 2), (5, 4, 4), None),
        ((2, 0, 1), (3, 4, 5), None),
        ((0, 1, 2), (0, 0, 0), (True, True, False)),
        ((0, 1, 2), (0, 0, 0), (False, True, True)),
        ((0, 1, 1), (4, 4, 4), None),
        ((0, 1, 2, 2), (4, 4, 4, 4), None),
    ],
)
def test_a_part_of_a_gang_is_never_drawn_from(
    parts: tuple[int, ...], counts: tuple[int, ...], is_ready: tuple[bool, ...] | None
) -> None:
    torn, pair = gang("a", 3), gang("b", 2)
    rows = [*(torn[part] for part in parts), *pair, alone()]
    ready = None if is_ready is None else (*is_ready, True, True, True)
    found = applied(rows, (*counts, 2, 2, 7), ready)
    number = len(parts)
    assert set(found[:number]) == {WITHDRAWAL}
    # Those beside it are not concerned.
    wanted = expected(pair[0], 2, [number, number + 1], len(rows))
    assert found[number : number + 2] == [wanted, wanted]
    assert found[-1] == expected(rows[-1], 7, [number + 2], len(rows))


def test_a_pair_and_a_gang_that_share_a_key_are_nobodys() -> None:
    rows = [*gang("a", 2), gang("a", 3)[2]]
    assert applied(rows, [1, 1, 1]) == [WITHDRAWAL] * 3


def test_a_chooser_follows_gangs_over_steps_and_changes() -> None:
    chooser = RowChooser("cpu")
    three, two = gang("a", 3), gang("b", 2)
    for rows, counts in [
        ([*three, *two], [0, 0, 0, 4, 4]),
        ([*three, *two], [1, 1, 1, 5, 5]),
        ([*three, *two], [2, 2, 1, 6, 6]),
        ([two[1], three[2], alone(), three[0], two[0], three[1]], [7, 2, 0, 2, 7, 2]),
        ([*two], [8, 8]),
        ([alone()], [1]),
        ([*three], [3, 3, 3]),
    ]:
        chooser.seat(rows)
        logits = scores(len(rows))
        chooser.apply(logits, np.array(counts, np.int64))
        found = [int(torch.nonzero(row > -torch.inf)) for row in logits]
        assert found == applied(rows, counts)
