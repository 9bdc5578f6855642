from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from mmgen.errors import EngineError, SettingsError
from mmgen.generate.engine import (
    AbstractRule,
    AbstractRuleState,
    Constraint,
    SamplingParams,
    SpanRequest,
    Step,
)
from mmgen.generate.torch_engine import TorchEngine
from mmgen.model import Decoder, DecoderConfig, init_weights

CODES = range(64, 128)
NULL = 5


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    config = DecoderConfig(
        vocab_size=128,
        hidden_size=64,
        num_layers=2,
        num_heads=2,
        num_kv_heads=1,
        intermediate_size=96,
        context_length=64,
    )
    decoder = Decoder(config)
    init_weights(decoder, 0)
    with torch.no_grad():
        # Larger weights than a fresh model's, so that ids depend on their context.
        for parameter in decoder.parameters():
            if parameter.ndim > 1:
                parameter.mul_(8)
    return decoder.eval()


def image_request(seed: int, prompt: tuple[int, ...] = (1, 2, 3, 4, 6), n: int = 12) -> SpanRequest:
    return SpanRequest(
        prompt_ids=prompt,
        unguided_ids=(prompt[0], *[NULL] * (len(prompt) - 2), prompt[-1]),
        guidance_scale=2.5,
        constraint=Constraint(((CODES,),)),
        max_ids=n,
        seed=seed,
    )


def text_request(seed: int, prompt: tuple[int, ...] = (9, 8, 7)) -> SpanRequest:
    return SpanRequest(
        prompt_ids=prompt,
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


def reference(decoder: Decoder, request: SpanRequest) -> list[int]:
    """Greedy ids by the packed pass over the whole sequence, once per id and stream."""
    ids: list[int] = []
    for step in range(request.max_ids):
        logits = []
        for prompt in (request.prompt_ids, request.unguided_ids or request.prompt_ids):
            sequence = torch.tensor([[*prompt, *ids]])
            positions = torch.arange(sequence.shape[1])[None]
            logits.append(decoder.logits(decoder(sequence, positions)[0, -1]))
        guided = logits[1] + request.guidance_scale * (logits[0] - logits[1])
        allowed = [id_ for ids_ in request.constraint.at(step) for id_ in ids_]
        ids.append(max(allowed, key=lambda id_: guided[id_].item()))
        if ids[-1] in request.stop_ids:
            break
    return ids


@pytest.mark.parametrize("make", [image_request, text_request])
def test_greedy_ids_equal_uncached_ones(decoder: Decoder, make: type) -> None:
    requests = [replace(make(seed), sampling=SamplingParams(temperature=0)) for seed in (0, 1)]
    requests[1] = replace(requests[1], prompt_ids=requests[1].prompt_ids[::-1])
    with torch.no_grad():
        expected = [reference(decoder, request) for request in requests]
    assert collect(TorchEngine(decoder), requests) == expected
    assert expected[0] != expected[1]


def test_the_unguided_prompt_may_have_another_length(decoder: Decoder) -> None:
    greedy = SamplingParams(temperature=0)
    requests = [
        replace(image_request(seed), unguided_ids=unguided, sampling=greedy)
        for seed, unguided in enumerate([(1, 9, 8, 7, 11, 12, 6), (1, 6), (1, 9, 8, 7, 6)])
    ]
    with torch.no_grad():
        expected = [reference(decoder, request) for request in requests]
    assert collect(TorchEngine(decoder), requests) == expected
    assert len({tuple(ids) for ids in expected}) == 3


def test_guidance_changes_the_ids(decoder: Decoder) -> None:
    guided = image_request(3)
    ids = collect(
        TorchEngine(decoder),
        [guided, replace(guided, guidance_scale=1.0), replace(guided, guidance_scale=8.0)],
    )
    plain = collect(TorchEngine(decoder), [replace(guided, unguided_ids=None, guidance_scale=1.0)])
    assert ids[0] != ids[1] != ids[2] and ids[1] == plain[0]


def test_ids_are_allowed_and_counted(decoder: Decoder) -> None:
    cycle = Constraint(((range(64, 70),), (range(100, 104), range(110, 111))))
    request = replace(image_request(1), constraint=cycle, max_ids=9)
    (ids,) = collect(TorchEngine(decoder), [request])
    assert len(ids) == 9
    assert all(id_ in range(64, 70) for id_ in ids[::2])
    assert all(id_ in (100, 101, 102, 103, 110) for id_ in ids[1::2])


def test_requests_in_other_phases_of_their_cycles_run_together(decoder: Decoder) -> None:
    cycle = Constraint(((range(64, 70),), (range(100, 104),), (range(80, 90),)))
    requests = [replace(image_request(seed), constraint=cycle, max_ids=9) for seed in (1, 2)]
    alone = [collect(TorchEngine(decoder), [request])[0] for request in requests]
    engine = TorchEngine(decoder)
    ids: dict[int, list[int]] = {engine.submit(requests[0]): []}
    for count in range(12):
        if count == 2:
            ids[engine.submit(requests[1])] = []
        for step in engine.step():
            ids[step.request_index].extend(step.ids)
    assert list(ids.values()) == alone


def test_text_ends_at_a_stop_id_or_at_its_length(decoder: Decoder) -> None:
    requests = [text_request(seed) for seed in range(12)]
    last: dict[int, Step] = {}
    ids: list[list[int]] = [[] for _ in requests]
    for step in TorchEngine(decoder).generate(requests):
        ids[step.request_index].extend(step.ids)
        last[step.request_index] = step
    reasons = {step.finish_reason for step in last.values()}
    assert reasons == {"stop", "length"}
    for index, step in last.items():
        stops = requests[index].stop_ids
        assert not stops & set(ids[index][:-1])
        assert (ids[index][-1] in stops) == (step.finish_reason == "stop")
        assert step.finish_reason == "stop" or len(ids[index]) == 20


def test_a_request_gives_the_same_ids_whatever_runs_beside_it(decoder: Decoder) -> None:
    requests: list[SpanRequest] = []
    for seed in range(8):
        prompt = tuple(10 + (seed * 7 + i) % 50 for i in range(3 + seed % 4))
        requests += [image_request(seed, prompt), text_request(seed, prompt[:-1])]
    alone = [collect(TorchEngine(decoder), [request])[0] for request in requests]
    assert collect(TorchEngine(decoder), requests) == alone
    backwards = collect(TorchEngine(decoder, num_rows=7), requests[::-1])
    assert backwards[::-1] == alone
    assert collect(TorchEngine(decoder, max_prefill_ids=9), requests) == alone


def test_arrivals_and_cancels_of_others_change_nothing(decoder: Decoder) -> None:
    requests = [image_request(seed, (1, 2, 3, seed + 20, 6)) for seed in range(6)]
    requests += [text_request(seed) for seed in range(6)]
    alone = [collect(TorchEngine(decoder), [request])[0] for request in requests]
    engine = TorchEngine(decoder, num_rows=9)
    names: dict[int, int] = {}
    ids: dict[int, list[int]] = {}
    cancelled = {2, 7, 9}
    for round_ in range(80):
        if round_ < len(requests):
            names[engine.submit(requests[round_])] = round_
            ids[round_] = []
        if round_ == 10:
            for index, number in names.items():
                if number in cancelled:
                    engine.cancel(index)
        for step in engine.step():
            ids[names[step.request_index]].extend(step.ids)
    assert engine.num_unfinished == 0
    for number, found in ids.items():
        if number in cancelled:
            assert found == alone[number][: len(found)]
        else:
            assert found == alone[number]


def test_a_cancelled_request_gives_no_more_steps(decoder: Decoder) -> None:
    engine = TorchEngine(decoder, num_rows=2)
    running, waiting, other = (engine.submit(image_request(seed)) for seed in range(3))
    assert [step.request_index for step in engine.step()] == [running]
    engine.cancel(running)
    engine.cancel(waiting)
    assert engine.num_unfinished == 1
    assert [step.request_index for step in engine.step()] == [other]
    engine.cancel(running)
    assert engine.num_unfinished == 1


def test_a_span_continues_from_what_the_cache_holds(decoder: Decoder) -> None:
    first = image_request(1, tuple(range(1, 15)))
    engine = TorchEngine(decoder)
    (ids,) = collect(engine, [first])
    longer = image_request(2, (*first.prompt_ids, *ids, 61))
    fresh = collect(TorchEngine(decoder), [longer])
    assert collect(engine, [longer]) == fresh
    samples = [replace(longer, seed=seed) for seed in range(5)]
    apart = [collect(TorchEngine(decoder), [sample])[0] for sample in samples]
    assert collect(engine, samples) == apart
    assert len({tuple(one) for one in apart}) == 5


def test_closing_the_stream_cancels(decoder: Decoder) -> None:
    engine = TorchEngine(decoder)
    stream = engine.generate([image_request(0), image_request(1)])
    next(stream)
    with pytest.raises(EngineError, match="2 unfinished requests"):
        next(engine.generate([image_request(2)]))
    stream.close()  # type: ignore[attr-defined]
    assert engine.num_unfinished == 0


def test_steps_say_what_guidance_was_applied(decoder: Decoder) -> None:
    requests = [image_request(0), text_request(0)]
    scales = {
        step.request_index: step.guidance_scale for step in TorchEngine(decoder).generate(requests)
    }
    assert scales == {0: 2.5, 1: 1.0}


def test_the_whole_context_can_be_filled(decoder: Decoder) -> None:
    request = image_request(0, (1, 2, 3, 4), n=60)
    (ids,) = collect(TorchEngine(decoder), [request])
    assert len(ids) == 60
    with pytest.raises(EngineError, match="5 tokens and 60 are to follow, 65 of 64 that fit"):
        TorchEngine(decoder).submit(image_request(0, (1, 2, 3, 4, 5), n=60))


def test_long_and_short_prompts_share_a_batch(decoder: Decoder) -> None:
    long = tuple(1 + i % 50 for i in range(50))
    requests = [image_request(0, long), image_request(1, (2, 3)), image_request(2, long[:40])]
    alone = [collect(TorchEngine(decoder), [request])[0] for request in requests]
    engine = TorchEngine(decoder)
    collect(engine, [image_request(3, long[:45])])
    assert collect(engine, requests) == alone


def test_ids_outside_the_decoder_are_refused(decoder: Decoder) -> None:
    engine = TorchEngine(decoder)
    with pytest.raises(EngineError, match="prompt id 128 is outside the decoder's 128 ids"):
        engine.submit(image_request(0, (1, 128, 3)))
    with pytest.raises(EngineError, match="may take id 128"):
        wide = Constraint(((range(100, 129),),))
        engine.submit(replace(image_request(0), constraint=wide))
    with pytest.raises(SettingsError, match="num_rows must be 2 or more"):
        TorchEngine(decoder, num_rows=1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gives_the_same_greedy_ids(decoder: Decoder) -> None:
    requests = [replace(image_request(s), sampling=SamplingParams(temperature=0)) for s in (0, 1)]
    expected = collect(TorchEngine(decoder), requests)
    on_gpu = Decoder(decoder.config)
    on_gpu.load_state_dict(decoder.state_dict())
    assert collect(TorchEngine(on_gpu.to("cuda").eval()), requests) == expected


@dataclass(frozen=True, slots=True)
class Ascending(AbstractRule):
    """Allows ids above the last one, and none but the stop id when `most` of them came."""

    most: int

    def begin(self) -> AbstractRuleState:
        return AscendingState(self.most)


class AscendingState(AbstractRuleState):
    def __init__(self, most: int) -> None:
        self._left = most
        self._last = 0

    def allowed(self) -> npt.NDArray[np.bool_]:
        known = np.arange(63) > self._last
        return known if self._left else known & (np.arange(63) == 62)

    def advance(self, id_: int) -> None:
        assert self.allowed()[id_]
        self._last = id_
        self._left -= 1


def ruled_request(seed: int, most: int = 4, **changes: Any) -> SpanRequest:
    request = replace(text_request(seed), stop_ids=frozenset({62}), rule=Ascending(most))
    return replace(request, **changes)


def test_a_rule_narrows_what_may_come(decoder: Decoder) -> None:
    requests = [ruled_request(seed) for seed in range(12)]
    for ids in collect(TorchEngine(decoder), requests):
        assert ids == sorted(set(ids)) and ids[-1] == 62 and len(ids) <= 5
    free = collect(TorchEngine(decoder), [replace(item, rule=None) for item in requests])
    assert any(ids != sorted(set(ids)) for ids in free)


def test_under_a_rule_the_best_of_the_allowed_ids_is_chosen(decoder: Decoder) -> None:
    request = ruled_request(0, sampling=SamplingParams(temperature=0))
    (ids,) = collect(TorchEngine(decoder), [request])
    rule = Ascending(4).begin()
    for place, id_ in enumerate(ids):
        sequence = torch.tensor([[*request.prompt_ids, *ids[:place]]])
        with torch.no_grad():
            hidden = decoder(sequence, torch.arange(sequence.shape[1])[None])[0, -1]
            logits = decoder.logits(hidden)
        known = rule.allowed()
        choices = [*range(10, 60), 62]
        best = max((c for c in choices if known[c]), key=lambda c: logits[c].item())
        assert id_ == best
        rule.advance(id_)


def test_a_rule_concerns_its_own_request_alone(decoder: Decoder) -> None:
    free = [text_request(seed) for seed in range(4)]
    alone = collect(TorchEngine(decoder), free)
    mixed = collect(TorchEngine(decoder), [*free, ruled_request(1), ruled_request(2, most=1)])
    assert mixed[:4] == alone
    assert mixed[4:] == [
        collect(TorchEngine(decoder), [request])[0]
        for request in (ruled_request(1), ruled_request(2, most=1))
    ]


def test_a_rule_that_allows_nothing_ends_its_request_with_an_error(decoder: Decoder) -> None:
    engine = TorchEngine(decoder)
    # Four ids in ascending order at most, and nine are wanted.
    stuck = replace(
        ruled_request(1),
        constraint=Constraint(((range(10, 14),),)),
        stop_ids=frozenset(),
        rule=Ascending(9),
    )
    indices = [engine.submit(stuck), engine.submit(text_request(5))]
    steps: list[Step] = []
    while engine.num_unfinished:
        steps += engine.step()
    last = [step for step in steps if step.request_index == indices[0]][-1]
    assert last.is_finished and last.ids == () and last.finish_reason is None
    assert "cannot go on in the form it must have" in str(last.error)
    others = [id_ for step in steps if step.request_index == indices[1] for id_ in step.ids]
    assert [others] == collect(TorchEngine(decoder), [text_request(5)])
    with pytest.raises(EngineError, match="cannot go on"):
        collect(engine, [stuck])
    assert engine.num_unfinished == 0
