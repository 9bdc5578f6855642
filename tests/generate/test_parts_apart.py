"""Requests whose parts are guided apart, on the torch engine and against a plain loop."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from mmgen.errors import EngineError, SettingsError
from mmgen.generate.engine import Constraint, SamplingParams, SpanRequest, Step, check_request
from mmgen.generate.session import Session
from mmgen.generate.torch_engine import TorchEngine
from mmgen.model import Decoder

CODES = range(64, 128)
NULL = 5
GREEDY = SamplingParams(temperature=0)


@pytest.fixture(scope="module")
def decoder(session: Session) -> Decoder:
    return session.checkpoint.load_decoder()


def plain(seed: int, n: int = 12) -> SpanRequest:
    prompt = tuple(10 + (7 * seed + place) % 50 for place in range(5 + seed % 3))
    return SpanRequest(prompt_ids=prompt, constraint=Constraint(((CODES,),)), max_ids=n, seed=seed)


def guided(seed: int, n: int = 12) -> SpanRequest:
    request = plain(seed, n)
    blank = (request.prompt_ids[0], *[NULL] * (len(request.prompt_ids) - 1))
    return replace(request, unguided_ids=blank, guidance_scale=2.5)


def apart(seed: int, n: int = 12, **changes: Any) -> SpanRequest:
    request = guided(seed, n)
    kept = (*request.prompt_ids[:3], *[NULL] * (len(request.prompt_ids) - 3))
    settings: dict[str, Any] = {"partial_ids": kept, "partial_scale": 1.5}
    return replace(request, **settings | changes)


def words(seed: int) -> SpanRequest:
    return SpanRequest(
        prompt_ids=(9, 8, 7 + seed),
        constraint=Constraint(((range(10, 60), range(62, 63)),)),
        max_ids=20,
        seed=seed,
        stop_ids=frozenset({62, 20, 30, 40}),
        sampling=SamplingParams(temperature=0.9, top_k=30, top_p=0.95),
    )


def collect(engine: TorchEngine, requests: list[SpanRequest]) -> list[list[int]]:
    ids: list[list[int]] = [[] for _ in requests]
    for step in engine.generate(requests):
        ids[step.request_index].extend(step.ids)
    return ids


@torch.no_grad()
def reference(decoder: Decoder, request: SpanRequest) -> list[int]:
    """Greedy ids by the packed pass over each whole sequence, the formula spelt out."""
    ids: list[int] = []
    assert request.partial_ids is not None and request.unguided_ids is not None
    for step in range(request.max_ids):
        logits = []
        for prompt in (request.prompt_ids, request.partial_ids, request.unguided_ids):
            sequence = torch.tensor([[*prompt, *ids]])
            positions = torch.arange(sequence.shape[1])[None]
            logits.append(decoder.logits(decoder(sequence, positions)[0, -1]))
        whole, part, blank = logits
        scores = blank + request.partial_scale * (part - blank)
        scores = scores + request.guidance_scale * (whole - part)
        (allowed,) = request.constraint.at(step)
        ids.append(max(allowed, key=lambda id_: scores[id_].item()))
    return ids


def test_greedy_ids_equal_those_of_a_plain_loop(decoder: Decoder) -> None:
    requests = [apart(seed, sampling=GREEDY) for seed in range(4)]
    requests += [
        apart(4, sampling=GREEDY, guidance_scale=scale, partial_scale=part)
        for scale, part in [(1.0, 3.0), (3.0, 1.0), (3.0, 3.0), (4.0, 0.0), (0.0, 2.0), (1.0, 1.0)]
    ]
    expected = [reference(decoder, request) for request in requests]
    assert collect(TorchEngine(decoder), requests) == expected
    assert collect(TorchEngine(decoder, num_rows=3), requests) == expected
    assert len({tuple(ids) for ids in expected[4:]}) >= 5
    crowd = [*map(plain, range(3)), *map(guided, range(5)), *map(words, range(3))]
    assert collect(TorchEngine(decoder), [*crowd[:4], *requests, *crowd[4:]])[4:14] == expected


def test_the_prompts_may_have_other_lengths(decoder: Decoder) -> None:
    request = apart(1, sampling=GREEDY)
    request = replace(request, partial_ids=(11, 12), unguided_ids=(NULL, 6, NULL, 7, 8, 9, 10, 3))
    assert collect(TorchEngine(decoder), [request]) == [reference(decoder, request)]


def test_company_changes_nothing(decoder: Decoder) -> None:
    requests: list[SpanRequest] = []
    for seed in range(5):
        requests += [apart(seed), words(seed), guided(seed), plain(seed)]
    alone = [collect(TorchEngine(decoder), [request])[0] for request in requests]
    assert collect(TorchEngine(decoder), requests) == alone
    assert collect(TorchEngine(decoder, num_rows=7), requests[::-1])[::-1] == alone
    assert collect(TorchEngine(decoder, max_prefill_ids=9), requests) == alone
    assert sum(alone[place] != alone[place + 2] for place in range(0, 20, 4)) >= 3


def test_arrivals_and_cancels_change_nothing(decoder: Decoder) -> None:
    requests = [apart(seed) if seed % 2 else guided(seed) for seed in range(9)]
    alone = [collect(TorchEngine(decoder), [request])[0] for request in requests]
    engine = TorchEngine(decoder, num_rows=8)
    ids: dict[int, list[int]] = {}
    cancelled = {1, 2, 5}
    for round_ in range(90):
        if round_ < len(requests):
            ids[engine.submit(requests[round_])] = []
        if round_ == 6:
            for index in cancelled:
                engine.cancel(index)
        for step in engine.step():
            ids[step.request_index].extend(step.ids)
    assert engine.num_unfinished == 0 and 0 < len(ids[1]) < 12
    for index, found in ids.items():
        assert found == (alone[index][: len(found)] if index in cancelled else alone[index])


def test_rows_are_taken_only_where_they_have_an_effect() -> None:
    request = apart(0)
    whole, part, blank = request.prompt_ids, request.partial_ids, request.unguided_ids
    assert request.streams == (whole, part, blank) and request.is_guided
    assert replace(request, partial_scale=2.5).streams == (whole, blank)
    assert replace(request, partial_scale=1.0).streams == (whole, part)
    assert replace(request, guidance_scale=1.0).streams == (whole, part, blank)
    off = replace(request, guidance_scale=1.0, partial_scale=1.0)
    assert off.streams == (whole,) and not off.is_guided
    assert guided(0).streams == (whole, blank) and plain(0).streams == (whole,)
    assert (off.applied_partial_scale, guided(0).applied_partial_scale) == (1.0, None)


def test_steps_say_what_was_applied(decoder: Decoder) -> None:
    requests = [apart(0), guided(0), plain(0), apart(1, guidance_scale=1.5)]
    told = {
        step.request_index: (step.guidance_scale, step.partial_scale)
        for step in TorchEngine(decoder).generate(requests)
    }
    assert told == {0: (2.5, 1.5), 1: (2.5, None), 2: (1.0, None), 3: (1.5, 1.5)}


def test_more_rows_than_there_are_is_refused_at_once(decoder: Decoder) -> None:
    engine = TorchEngine(decoder, num_rows=2)
    assert engine.max_streams == 2 and TorchEngine(decoder).max_streams == 3
    with pytest.raises(EngineError, match="takes 3 rows, but the engine has 2; give it more"):
        engine.submit(apart(0))
    steps: list[Step] = list(engine.generate([apart(0, guidance_scale=1.5)]))
    assert len(steps) == 12 and engine.num_unfinished == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"partial_scale": -1.0}, "guidance of a part must be 0 or more, got -1.0"),
        ({"partial_scale": math.nan}, "guidance of a part must be 0 or more, got nan"),
        ({"partial_ids": None}, "guidance 1.5 of a part needs a prompt that keeps it"),
        ({"partial_ids": ()}, "needs at least one id, and an unguided one"),
        ({"unguided_ids": None, "guidance_scale": 1.0}, "and an unguided one beside it"),
    ],
)
def test_bad_requests_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        apart(0, **changes)


def test_all_prompts_are_checked() -> None:
    check_request(apart(0), 128, 17)
    with pytest.raises(EngineError, match="prompt id 128 is outside the decoder's 128 ids"):
        check_request(replace(apart(0), partial_ids=(128,)), 128, 99)
    with pytest.raises(EngineError, match="the prompt has 9 tokens and 12 are to follow, 21 of 20"):
        check_request(replace(apart(0), partial_ids=(1,) * 9), 128, 20)
