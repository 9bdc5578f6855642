"""The engine on a real vLLM, in float32 on a CPU, against the torch engine and a plain loop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed; .ci/run tests this with it")

from mmgen.checkpoint import Checkpoint
from mmgen.document import Document, Text, Turn
from mmgen.errors import EngineError
from mmgen.generate.engine import Constraint, SamplingParams, SpanRequest, Step
from mmgen.generate.requests import ChatRequest, DrawRequest
from mmgen.generate.session import Session
from mmgen.generate.vllm_config import VllmEngineConfig
from mmgen.generate.vllm_engine import VllmEngine
from mmgen.generate.vllm_start import start_vllm
from tests.vllm.vllm_objects import CONFIGS, collect, plain_ids

# What vLLM does at work is not ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore")

GREEDY = SamplingParams(temperature=0)
SAMPLED = SamplingParams(temperature=1.0, top_k=40, top_p=0.95)
COLOURS = ("red", "green", "blue", "yellow")
SHAPES = ("circle", "square above a long row of smaller squares", "fox", "")
PROMPTS = [f"draw a {colour} {shape}" for colour in COLOURS for shape in SHAPES]
assert len(PROMPTS) == 16
SMALL = (32, 32)


@pytest.fixture(scope="module", params=CONFIGS)
def engine(request: pytest.FixtureRequest, checkpoint: Checkpoint) -> Iterator[VllmEngine]:
    engine = start_vllm(checkpoint, CONFIGS[request.param])
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def roomy(checkpoint: Checkpoint) -> Iterator[VllmEngine]:
    engine = start_vllm(checkpoint, CONFIGS["roomy"])
    yield engine
    engine.close()


def drawing(session: Session, prompt: str, seed: int = 0, **settings: Any) -> SpanRequest:
    request = DrawRequest(prompt=prompt, seed=seed, **settings)
    return session.begin(0, request).span


def answer(session: Session, prompt: str, seed: int = 0) -> SpanRequest:
    document = Document(turns=(Turn("user", (Text(prompt),)),))
    request = ChatRequest(document=document, seed=seed, max_images=0, max_text_ids=40)
    return session.begin(0, request).span


@pytest.fixture(scope="module")
def guided(session: Session) -> list[SpanRequest]:
    return [drawing(session, prompt, sampling=GREEDY, guidance_scale=3.0) for prompt in PROMPTS]


@pytest.fixture(scope="module")
def plain(checkpoint: Checkpoint, guided: list[SpanRequest]) -> list[list[int]]:
    return plain_ids(checkpoint, guided)


@pytest.fixture(scope="module")
def mixture(session: Session, guided: list[SpanRequest]) -> list[SpanRequest]:
    """Guided and unguided pictures and texts, of several lengths, greedy and sampled."""
    requests = []
    for number, request in enumerate(guided):
        requests.append(request)
        prompt = PROMPTS[number]
        if number % 2:
            requests.append(answer(session, f"what is {prompt} and why? " * (1 + number % 3)))
        if number % 3 == 0:
            requests.append(drawing(session, prompt, seed=number, guidance_scale=1.0))
        if number % 5 == 0:
            requests.append(drawing(session, prompt, number, sampling=SAMPLED, size=SMALL))
    return requests


@pytest.fixture(scope="module")
def mixed_ids(session: Session, mixture: list[SpanRequest]) -> list[list[int]]:
    """What the torch engine makes of the mixture."""
    return collect(session.engine, mixture)


def test_the_torch_engine_draws_what_the_plain_loop_does(
    session: Session, guided: list[SpanRequest], plain: list[list[int]]
) -> None:
    assert collect(session.engine, guided) == plain
    assert len({tuple(ids) for ids in plain}) == len(plain) == 16


@pytest.mark.parametrize("num_pairs", [1, 4, 12])
def test_greedy_guided_ids_are_those_of_a_plain_loop(
    engine: VllmEngine, guided: list[SpanRequest], plain: list[list[int]], num_pairs: int
) -> None:
    # One after the other, the beginnings suffice.
    num_ids = 12 if num_pairs == 1 else guided[0].max_ids
    requests = [replace(request, max_ids=num_ids) for request in guided]
    for first in range(0, len(requests), num_pairs):
        drawn = collect(engine, requests[first : first + num_pairs])
        assert drawn == [ids[:num_ids] for ids in plain[first : first + num_pairs]]


def test_a_mixture_draws_what_torch_draws(
    engine: VllmEngine,
    mixture: list[SpanRequest],
    mixed_ids: list[list[int]],
    guided: list[SpanRequest],
) -> None:
    assert len(mixture) > len(guided) + 10
    engine.reset_stats()
    assert collect(engine, mixture) == mixed_ids
    stats = engine.stats
    assert stats.num_requests == len(mixture)
    assert stats.num_pairs == sum(request.is_guided for request in mixture)
    assert stats.num_running == stats.num_waiting == stats.num_failed == 0
    # Each configuration does what it is for.
    (name,) = [name for name, config in CONFIGS.items() if config == engine.config]
    longest = max(len(request.prompt_ids) for request in mixture if request.is_guided)
    assert (engine.capacity.chunk_tokens < longest) == ("chunked" in name)
    if "preempted" in name:
        assert stats.num_restarts > 0
    elif name != "chunked":
        assert stats.num_restarts == 0
    if not engine.config.prefix_caching:
        assert stats.num_cached_tokens == 0


def test_the_same_seed_gives_the_same_ids_in_any_company(
    engine: VllmEngine, session: Session, mixture: list[SpanRequest]
) -> None:
    requests = [
        drawing(session, PROMPTS[seed], seed, sampling=SAMPLED, guidance_scale=2.0)
        for seed in range(6)
    ]
    expected = collect(session.engine, requests)
    assert expected[0] != collect(session.engine, [replace(requests[0], seed=99)])[0]
    assert collect(engine, requests) == expected
    assert [collect(engine, [request])[0] for request in requests[:2]] == expected[:2]
    crowd = [*mixture[:7], *requests[::-1], *mixture[7:]]
    assert collect(engine, crowd)[7:13] == expected[::-1]


def test_codebooks_in_turn_have_their_own_ranges(roomy: VllmEngine, session: Session) -> None:
    request = drawing(session, PROMPTS[0], sampling=SAMPLED, guidance_scale=3.0)
    cycle = Constraint(((range(300, 340),), (range(10, 20), range(340, 345)), (range(90, 99),)))
    requests = [
        replace(request, constraint=cycle, max_ids=20, seed=seed, prompt_ids=request.prompt_ids)
        for seed in range(3)
    ]
    drawn = collect(roomy, requests)
    assert drawn == collect(session.engine, requests)
    assert all(id_ in range(90, 99) for ids in drawn for id_ in ids[2::3])


def test_a_guided_text_ends_at_its_stop_id(roomy: VllmEngine, session: Session) -> None:
    text = answer(session, "what is this?")
    request = replace(
        text,
        unguided_ids=tuple(reversed(text.prompt_ids)),
        guidance_scale=1.5,
        constraint=Constraint(((range(40, 60),),)),
        stop_ids=frozenset({41, 47, 52}),
        max_ids=60,
        sampling=SAMPLED,
    )
    requests = [replace(request, seed=seed) for seed in range(4)]
    drawn = collect(roomy, requests)
    assert drawn == collect(session.engine, requests)
    assert all(ids[-1] in request.stop_ids for ids in drawn)


def run(engine: VllmEngine, limit: int = 3000) -> list[Step]:
    """Return all steps until nothing is left."""
    steps = []
    while engine.num_unfinished:
        steps += engine.step()
        limit -= 1
        assert limit, "the engine does not come to an end"
    return steps


def ids_of(steps: Sequence[Step], index: int) -> list[int]:
    return [id_ for step in steps if step.request_index == index for id_ in step.ids]


def test_cancelling_a_pair_frees_both_halves_at_once(
    roomy: VllmEngine, session: Session, guided: list[SpanRequest]
) -> None:
    pool = roomy._llm.engine_core.engine_core.scheduler.kv_cache_manager.block_pool
    free = pool.get_num_free_blocks()
    indices = [roomy.submit(request) for request in guided[:3]]
    steps = [step for _ in range(5) for step in roomy.step()]
    assert roomy._llm.get_num_unfinished_requests() == 6
    before = pool.get_num_free_blocks()
    roomy.cancel(indices[1])
    roomy.cancel(indices[1])
    assert roomy._llm.get_num_unfinished_requests() == 4
    assert pool.get_num_free_blocks() > before
    steps += run(roomy)
    expected = collect(session.engine, guided[:3])
    assert ids_of(steps, indices[0]) == expected[0]
    assert ids_of(steps, indices[2]) == expected[2]
    assert len(ids_of(steps, indices[1])) == 5
    assert pool.get_num_free_blocks() == free


def test_cancelling_what_waits_and_what_is_finished_is_let_be(
    roomy: VllmEngine, guided: list[SpanRequest]
) -> None:
    first, second = roomy.submit(guided[0]), roomy.submit(guided[1])
    roomy.cancel(second)
    steps = run(roomy)
    assert {step.request_index for step in steps} == {first}
    roomy.cancel(first)
    assert roomy.num_unfinished == 0


def test_a_pair_that_loses_a_half_is_cut_back_and_goes_on(
    engine: VllmEngine, session: Session, guided: list[SpanRequest]
) -> None:
    engine.reset_stats()
    first, second = engine.submit(guided[0]), engine.submit(guided[1])
    steps = [step for _ in range(9) for step in engine.step()]
    flight = engine._flights[first]
    engine._llm.abort_request([flight.rows[1].name])
    steps += run(engine)
    expected = collect(session.engine, guided[:2])
    assert ids_of(steps, first) == expected[0]
    assert ids_of(steps, second) == expected[1]
    assert engine.stats.num_restarts >= 1
    assert all(step.guidance_scale == 3.0 for step in steps)
    assert max(step.num_restarts for step in steps if step.request_index == first) >= 1


def test_a_pair_that_never_keeps_together_fails_alone(
    roomy: VllmEngine, session: Session, guided: list[SpanRequest]
) -> None:
    roomy.reset_stats()
    first, second = roomy.submit(guided[0]), roomy.submit(guided[1])
    steps: list[Step] = []
    while roomy.num_unfinished:
        # Admitted here, so that one half is lost before the first step.
        roomy._admit()
        if flight := roomy._flights.get(first):
            roomy._llm.abort_request([flight.rows[1].name])
        steps += roomy.step()
    failed = [step for step in steps if step.error is not None]
    assert [step.request_index for step in failed] == [first]
    assert failed[0].is_finished and "kept in step" in str(failed[0].error)
    assert ids_of(steps, first) == []
    assert ids_of(steps, second) == collect(session.engine, guided[1:2])[0]
    assert roomy.stats.num_failed == 1
    assert roomy.stats.num_restarts == roomy.config.max_stalls + 1


def test_spans_of_one_prompt_find_it_in_the_cache(
    roomy: VllmEngine, guided: list[SpanRequest]
) -> None:
    (ids,) = collect(roomy, guided[:1])
    roomy.reset_stats()
    longer = (*guided[0].prompt_ids, *ids)
    request = replace(guided[0], prompt_ids=longer, unguided_ids=longer[::-1], max_ids=2)
    steps = list(roomy.generate([request]))
    stats = roomy.stats
    block = roomy.capacity.block_size
    assert stats.num_prompt_tokens == 2 * len(longer)
    assert stats.num_cached_tokens >= (len(longer) - 1) // block * block
    assert steps[-1].num_cached_ids == (len(longer) - 1) // block * block


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt_ids": (10**6,), "unguided_ids": (1,)}, "outside the decoder"),
        ({"max_ids": 4000}, "shorten the prompt"),
    ],
)
def test_what_cannot_be_served_is_refused(
    roomy: VllmEngine, guided: list[SpanRequest], change: dict[str, Any], message: str
) -> None:
    request = replace(guided[0], **change)
    with pytest.raises(EngineError, match=message):
        roomy.submit(request)
    assert roomy.num_unfinished == 0


def test_a_guided_request_must_leave_an_id_out(
    roomy: VllmEngine, checkpoint: Checkpoint, guided: list[SpanRequest]
) -> None:
    everything = Constraint(((range(checkpoint.config.vocab_size),),))
    with pytest.raises(EngineError, match="leave out one"):
        roomy.submit(replace(guided[0], constraint=everything))


def test_a_cache_that_holds_no_pair_is_named(checkpoint: Checkpoint, session: Session) -> None:
    engine = VllmEngine(
        checkpoint, VllmEngineConfig(compilation="off", num_rows=4, cache_bytes=9 * 2**15)
    )
    request = drawing(session, PROMPTS[1] + " and" * 20, guidance_scale=3.0)
    with pytest.raises(EngineError, match="do not fit a cache of"):
        engine.submit(request)
    engine.close()
