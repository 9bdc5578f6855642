"""Guidance as arithmetic: one scale, a scale for a part, and both side by side."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmgen.generate.sampling import GuidanceRows, guide, guide_apart

SCALES = st.floats(0, 20, width=32)
NUM_ROWS, WIDTH = 9, 5


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values).unsqueeze(1)


def scores(seed: int, rows: int = NUM_ROWS) -> torch.Tensor:
    return torch.randn(rows, WIDTH, generator=torch.Generator().manual_seed(seed)) * 30


@settings(deadline=None)
@given(st.integers(0, 1000), SCALES, SCALES)
def test_three_prompts_count_as_the_formula_says(seed: int, first: float, second: float) -> None:
    whole, part, blank = scores(seed, 3).double()
    found = guide_apart(
        whole.unsqueeze(0),
        part.unsqueeze(0),
        blank.unsqueeze(0),
        column(first).double(),
        column(second).double(),
    )
    expected = blank + first * (part - blank) + second * (whole - part)
    torch.testing.assert_close(found[0], expected)


@settings(deadline=None)
@given(st.integers(0, 1000), SCALES, SCALES)
def test_a_part_that_is_nothing_changes_nothing(seed: int, first: float, second: float) -> None:
    whole, blank = scores(seed), scores(seed + 1)
    scales = torch.full((NUM_ROWS, 1), second)
    found = guide_apart(whole, blank, blank, torch.full((NUM_ROWS, 1), first), scales)
    assert torch.equal(found, guide(whole, blank, scales))


@settings(deadline=None)
@given(st.integers(0, 1000), SCALES)
def test_equal_scales_are_one_scale(seed: int, scale: float) -> None:
    whole, part, blank = scores(seed), scores(seed + 1), scores(seed + 2)
    scales = torch.full((NUM_ROWS, 1), scale)
    found = guide_apart(whole, part, blank, scales, scales)
    torch.testing.assert_close(found, guide(whole, blank, scales), rtol=1e-4, atol=1e-3)


@st.composite
def gangs(draw: st.DrawFn) -> list[list[int]]:
    """Draw rows of requests of one to three rows, which lie anywhere."""
    rows = draw(st.permutations(range(NUM_ROWS)))
    found: list[list[int]] = []
    while len(rows) >= 3:
        number = draw(st.integers(1, 3))
        found.append(list(rows[:number]))
        rows = rows[number:]
    return found


@settings(deadline=None)
@given(gangs(), st.integers(0, 1000), st.data())
def test_each_request_is_led_by_its_own_rows(
    gangs: list[list[int]], seed: int, data: st.DataObject
) -> None:
    read = scores(seed)
    scales = [data.draw(SCALES) if len(rows) > 1 else 1.0 for rows in gangs]
    parts = [data.draw(SCALES) if len(rows) > 2 else 1.0 for rows in gangs]
    guidance = GuidanceRows.stack(gangs, scales, parts)
    firsts = torch.tensor([rows[0] for rows in gangs])
    if guidance is None:
        assert max(map(len, gangs)) == 1
        return
    led = guidance.lead(read[firsts], lambda rows: read[rows])
    assert {row for rows in gangs for row in rows} == {
        *firsts.tolist(),
        *(row for rows in guidance.rows for row in rows.tolist()),
    }
    assert (guidance.partial_rows is None) == (max(map(len, gangs)) < 3)
    for rows, scale, part, found in zip(gangs, scales, parts, led, strict=True):
        alone = [read[[row]] for row in rows]
        match alone:
            case [whole]:
                assert torch.equal(found, whole[0])
            case [whole, blank]:
                assert torch.equal(found, guide(whole, blank, column(scale))[0])
            case [whole, kept, blank]:
                expected = guide_apart(whole, kept, blank, column(part), column(scale))
                assert torch.equal(found, expected[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_guidance_away_from_a_part_alone_needs_no_blank_prompt(dtype: torch.dtype) -> None:
    whole, part, blank = (scores(seed).to(dtype) for seed in range(3))
    ones, scales = torch.ones(NUM_ROWS, 1, dtype=dtype), torch.full((NUM_ROWS, 1), 3, dtype=dtype)
    found = guide_apart(whole, part, blank, ones, scales)
    torch.testing.assert_close(found, guide(whole, part, scales), rtol=1e-4, atol=1e-3)
