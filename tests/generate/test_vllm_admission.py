from __future__ import annotations

from dataclasses import replace

import pytest

from mmgen.errors import EngineError
from mmgen.generate.vllm_admission import Admission, Capacity

CAPACITY = Capacity(num_rows=8, step_tokens=100, chunk_tokens=40, num_blocks=50, block_size=10)


def admits(admission: Admission, key: int, **change: int) -> bool:
    asked = {"num_rows": 2, "prompt_tokens": 10, "max_ids": 10, "firm": False} | change
    prompts = [asked["prompt_tokens"]] * asked["num_rows"]
    return admission.admit(key, prompts, asked["max_ids"], firm=bool(asked["firm"]))


def test_no_more_rows_than_there_are_seats() -> None:
    admission = Admission(CAPACITY)
    assert [admits(admission, key) for key in range(5)] == [True, True, True, True, False]
    assert not admits(admission, 9, num_rows=1)
    admission.release(2)
    assert admits(admission, 9, num_rows=1) and admits(admission, 10, num_rows=1)
    assert not admits(admission, 11, num_rows=1)


def test_prompts_that_start_together_fit_one_step() -> None:
    admission = Admission(CAPACITY)
    # However long, a prompt takes one chunk of a step.
    assert admits(admission, 0, prompt_tokens=90)
    assert not admits(admission, 1, prompt_tokens=11)
    assert admits(admission, 1, prompt_tokens=10)
    admission.note_started(0)
    assert admits(admission, 2, prompt_tokens=38)
    assert not admits(admission, 3, num_rows=1, prompt_tokens=3)


def test_cache_is_promised_for_the_full_length() -> None:
    admission = Admission(CAPACITY)
    assert admits(admission, 0, max_ids=195)
    admission.note_started(0)
    # 42 of 50 blocks are promised, and a row of 41 tokens takes five.
    assert not admits(admission, 1, num_rows=2, max_ids=31)
    assert admits(admission, 1, num_rows=2, max_ids=30)


def test_cache_may_be_promised_twice_but_not_to_those_who_lost_it() -> None:
    admission = Admission(replace(CAPACITY, overcommit=2.0))
    assert admits(admission, 0, max_ids=195)
    assert not admits(admission, 1, max_ids=195, firm=True)
    assert admits(admission, 1, max_ids=195)
    assert not admits(admission, 2, max_ids=195)


def test_whoever_is_alone_is_served() -> None:
    admission = Admission(replace(CAPACITY, step_tokens=12))
    assert admits(admission, 0, prompt_tokens=400, firm=True)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (([200, 200], 51), "do not fit a cache of 500 tokens"),
        (([200, 220], 50), "rows of up to 270 tokens do not fit"),
        (([1] * 9, 1), "max_num_seqs 8"),
    ],
)
def test_what_would_never_fit_is_refused(asked: tuple[list[int], int], message: str) -> None:
    Admission(CAPACITY).check([200, 200], 50)
    with pytest.raises(EngineError, match=message):
        Admission(CAPACITY).check(*asked)


def test_a_prompt_takes_as_many_steps_as_chunks() -> None:
    assert [CAPACITY.num_chunks(tokens) for tokens in (1, 40, 41)] == [1, 1, 2]


def test_prompts_of_two_lengths_must_be_able_to_keep_in_step() -> None:
    for capacity in (CAPACITY, replace(CAPACITY, prefix_caching=False)):
        Admission(capacity).check([90, 90], 20)
        Admission(capacity).check([20, 11], 20)
    # With a prefix cache, what came apart at first is read in one step afterwards.
    Admission(CAPACITY).check([90, 31], 20)
    for capacity in (
        replace(CAPACITY, prefix_caching=False),
        replace(CAPACITY, block_size=50, num_blocks=20),
    ):
        with pytest.raises(EngineError, match=r"has 90 tokens and .* away from 31, which vLLM"):
            Admission(capacity).check([90, 31], 20)
    with pytest.raises(EngineError, match="different numbers of steps of 40 tokens"):
        Admission(replace(CAPACITY, prefix_caching=False)).check([20, 21], 20)


def test_prompts_of_two_lengths_take_what_each_needs() -> None:
    admission = Admission(CAPACITY)
    assert admission.admit(0, [40, 20], 10, firm=False)
    # 60 of a step's 100 tokens and 8 of 50 blocks are promised.
    assert not admission.admit(1, [30, 11], 10, firm=False)
    assert admission.admit(1, [30, 10], 10, firm=False)


def test_three_prompts_fit_a_step_or_can_be_joined_afterwards() -> None:
    without = replace(CAPACITY, prefix_caching=False)
    Admission(without).check([30, 30, 30], 3)
    # Three chunks of 40 are more than the 100 tokens of a step, and what came apart stays apart.
    for prompts, max_ids in (([90, 90, 90], 10), ([33, 33, 33], 1)):
        with pytest.raises(EngineError, match="in chunks of 40, which do not fit a step of 100"):
            Admission(without).check(prompts, max_ids)
        Admission(CAPACITY).check(prompts, max_ids)
    with pytest.raises(EngineError, match="the one that guidance leads away from 31, which vLLM"):
        Admission(without).check([90, 31, 90], 20)
    Admission(CAPACITY).check([90, 31, 90], 20)
    with pytest.raises(EngineError, match="do not fit a step of 100 tokens"):
        Admission(replace(CAPACITY, block_size=35, num_blocks=20)).check([90, 90, 90], 10)


def test_three_rows_take_three_shares() -> None:
    admission = Admission(CAPACITY)
    assert admission.admit(0, [20, 20, 20], 10, firm=False)
    assert not admission.admit(1, [14, 14, 14], 10, firm=False)
    assert admission.admit(1, [13, 13, 13], 10, firm=False)
    admission.note_started(0)
    # Six of eight rows are taken.
    assert not admission.admit(2, [5, 5, 5], 10, firm=False)
    assert admission.admit(2, [5, 5], 10, firm=False)
