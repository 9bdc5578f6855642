from __future__ import annotations

import math
from typing import Any

import pytest

from mmgen.errors import EngineError, SettingsError
from mmgen.generate.engine import Constraint, SpanRequest, check_request

CODES = Constraint(((range(10, 20),), (range(20, 30), range(40, 41))))


def request(**changes: Any) -> SpanRequest:
    settings: dict[str, Any] = {
        "prompt_ids": (1, 2),
        "constraint": CODES,
        "max_ids": 4,
        "seed": 0,
    }
    return SpanRequest(**{**settings, **changes})


def test_a_constraint_repeats() -> None:
    assert CODES.at(0) == CODES.at(2) == (range(10, 20),)
    assert CODES.at(5) == (range(20, 30), range(40, 41))
    assert CODES.allows(40) and CODES.allows(10) and not CODES.allows(30)
    assert CODES.num_rows_needed == 41


@pytest.mark.parametrize("cycle", [(), ((),), ((range(3, 3),),), ((range(3),), ())])
def test_a_constraint_always_allows_something(cycle: tuple[tuple[range, ...], ...]) -> None:
    with pytest.raises(SettingsError, match="must allow some id at every step"):
        Constraint(cycle)


def test_guidance_needs_an_effect() -> None:
    assert not request().is_guided
    assert not request(unguided_ids=(0, 0)).is_guided
    assert request(unguided_ids=(0, 0), guidance_scale=0.0).is_guided


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt_ids": ()}, "at least one prompt id"),
        ({"max_ids": 0}, "must want 1 id or more, got 0"),
        ({"seed": -1}, "a seed must be within 0 and 9223372036854775807, got -1"),
        ({"seed": 2**63}, "a seed must be within"),
        ({"guidance_scale": 3.0}, "guidance 3.0 needs an unguided prompt"),
        ({"guidance_scale": math.inf}, "guidance must be 0 or more, got inf"),
        ({"guidance_scale": -1.0}, "guidance must be 0 or more, got -1.0"),
        ({"unguided_ids": ()}, "an unguided prompt needs at least one id"),
        ({"stop_ids": frozenset({12, 99})}, "stop id 99 can never come"),
    ],
)
def test_bad_requests_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        request(**changes)


def test_the_longer_of_two_prompts_must_fit() -> None:
    other = request(unguided_ids=(0, 0, 0), guidance_scale=2.0)
    check_request(other, 64, 7)
    with pytest.raises(EngineError, match="the prompt has 3 tokens and 4 are to follow, 7 of 6"):
        check_request(other, 64, 6)
