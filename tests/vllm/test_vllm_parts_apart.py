"""Pictures and words guided apart on a real vLLM, against the torch engine and a plain loop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image as Pillow

pytest.importorskip("vllm", reason="vLLM is not installed; .ci/run tests this with it")

from mmgen.checkpoint import Checkpoint
from mmgen.document import Document, Image, Text, Turn
from mmgen.errors import EngineError
from mmgen.generate.engine import SamplingParams, SpanRequest, Step
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
WORDS = ("a square", "make it a fox above a long row of smaller squares")
SMALL = (32, 32)


@pytest.fixture(scope="module", params=CONFIGS)
def engine(request: pytest.FixtureRequest, checkpoint: Checkpoint) -> Iterator[VllmEngine]:
    engine = start_vllm(checkpoint, CONFIGS[request.param])
    yield engine
    engine.close()


def edit(session: Session, colour: str, words: str, seed: int = 0, **settings: Any) -> SpanRequest:
    defaults: dict[str, Any] = {
        "guidance_scale": 3.0,
        "image_guidance_scale": 1.5,
        "image_sampling": GREEDY,
    }
    picture = Image(picture=Pillow.new("RGB", (32, 32), colour), tokenizer="palette")
    request = ChatRequest(
        document=Document(turns=(Turn("user", (picture, Text(words))),)),
        seed=seed,
        max_text_ids=0,
        must_draw=True,
        **defaults | settings,
    )
    return session.begin(0, request).span


@pytest.fixture(scope="module")
def edits(session: Session) -> list[SpanRequest]:
    return [edit(session, colour, words) for colour in COLOURS for words in WORDS]


@pytest.fixture(scope="module")
def plain(checkpoint: Checkpoint, edits: list[SpanRequest]) -> list[list[int]]:
    return plain_ids(checkpoint, edits)


@pytest.fixture(scope="module")
def mixture(session: Session, edits: list[SpanRequest]) -> list[SpanRequest]:
    """Pictures of one, two and three rows and texts, greedy and sampled."""
    requests = []
    for number, request in enumerate(edits):
        colour, words = COLOURS[number % 4], WORDS[number % 2]
        requests.append(request)
        requests.append(edit(session, colour, words, image_guidance_scale=None))
        if number % 2:
            question = Document(turns=(Turn("user", (Text(f"what is {words}?"),)),))
            answer = ChatRequest(document=question, seed=number, max_images=0, max_text_ids=30)
            requests.append(session.begin(0, answer).span)
        if number % 3 == 0:
            drawing = DrawRequest(prompt=words, seed=number, guidance_scale=1.0, size=SMALL)
            requests.append(session.begin(0, drawing).span)
            sampled = edit(session, colour, words, number, image_sampling=SAMPLED, size=SMALL)
            requests.append(sampled)
    return requests


def test_the_torch_engine_draws_what_the_plain_loop_does(
    session: Session, edits: list[SpanRequest], plain: list[list[int]]
) -> None:
    assert all(len(request.streams) == 3 for request in edits)
    assert collect(session.engine, edits) == plain
    assert len({tuple(ids) for ids in plain}) == len(edits)
    together = [
        replace(request, partial_scale=request.guidance_scale, max_ids=8) for request in edits
    ]
    assert collect(session.engine, together) != [ids[:8] for ids in plain]


@pytest.mark.parametrize("num_gangs", [1, 4])
def test_greedy_ids_are_those_of_a_plain_loop(
    engine: VllmEngine, edits: list[SpanRequest], plain: list[list[int]], num_gangs: int
) -> None:
    # One after the other, the beginnings suffice.
    num_ids = 12 if num_gangs == 1 else edits[0].max_ids
    requests = [replace(request, max_ids=num_ids) for request in edits]
    for first in range(0, len(requests), num_gangs):
        drawn = collect(engine, requests[first : first + num_gangs])
        assert drawn == [ids[:num_ids] for ids in plain[first : first + num_gangs]]


def test_a_mixture_draws_what_torch_draws(
    engine: VllmEngine, session: Session, mixture: list[SpanRequest]
) -> None:
    assert {len(request.streams) for request in mixture} == {1, 2, 3}
    engine.reset_stats()
    assert collect(engine, mixture) == collect(session.engine, mixture)
    stats = engine.stats
    assert stats.num_pairs == sum(request.is_guided for request in mixture)
    assert stats.num_running == stats.num_waiting == stats.num_failed == 0
    # Each configuration does what it is for.
    (name,) = [name for name, config in CONFIGS.items() if config == engine.config]
    longest = max(len(request.prompt_ids) for request in mixture)
    assert (engine.capacity.chunk_tokens < longest) == ("chunked" in name)
    if "preempted" in name:
        assert stats.num_restarts > 0
    elif name != "chunked":
        assert stats.num_restarts == 0


def test_the_same_seed_gives_the_same_ids_in_any_company(
    engine: VllmEngine, session: Session, mixture: list[SpanRequest]
) -> None:
    requests = [
        edit(session, colour, WORDS[0], seed, image_sampling=SAMPLED, size=SMALL)
        for seed, colour in enumerate(COLOURS)
    ]
    expected = collect(session.engine, requests)
    assert expected[0] != collect(session.engine, [replace(requests[0], seed=99)])[0]
    assert collect(engine, requests) == expected
    assert [collect(engine, [request])[0] for request in requests[:2]] == expected[:2]
    crowd = [*mixture[:4], *requests[::-1], *mixture[4:8]]
    assert collect(engine, crowd)[4:8] == expected[::-1]


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


@pytest.mark.parametrize("lost", [(0,), (1,), (2,), (1, 2)])
def test_a_gang_that_loses_rows_is_cut_back_and_goes_on(
    engine: VllmEngine, edits: list[SpanRequest], plain: list[list[int]], lost: tuple[int, ...]
) -> None:
    engine.reset_stats()
    first, second = engine.submit(edits[0]), engine.submit(edits[1])
    steps = [step for _ in range(9) for step in engine.step()]
    rows = engine._flights[first].rows
    assert len(rows) == 3
    engine._llm.abort_request([rows[place].name for place in lost])
    steps += run(engine)
    assert [ids_of(steps, first), ids_of(steps, second)] == plain[:2]
    assert engine.stats.num_restarts >= 1 and engine.stats.num_failed == 0
    assert {(step.guidance_scale, step.partial_scale) for step in steps} == {(3.0, 1.5)}


def test_cancelling_frees_all_three_rows_at_once(
    engine: VllmEngine, edits: list[SpanRequest], plain: list[list[int]]
) -> None:
    pool = engine._llm.engine_core.engine_core.scheduler.kv_cache_manager.block_pool
    free = pool.get_num_free_blocks()
    first, second = engine.submit(edits[2]), engine.submit(edits[3])
    steps = [step for _ in range(16) for step in engine.step()]
    assert engine._llm.get_num_unfinished_requests() == 6
    engine.cancel(first)
    assert engine._llm.get_num_unfinished_requests() == 3
    steps += run(engine)
    assert ids_of(steps, second) == plain[3]
    assert pool.get_num_free_blocks() == free


def test_prompts_that_no_step_holds_together_are_joined_from_the_cache(
    checkpoint: Checkpoint, edits: list[SpanRequest], plain: list[list[int]]
) -> None:
    config = VllmEngineConfig(compilation="off", num_rows=16, step_tokens=104)
    engine = start_vllm(checkpoint, config)
    chunk = engine.capacity.chunk_tokens
    assert 2 * chunk <= engine.capacity.step_tokens < 3 * chunk < 3 * len(edits[1].prompt_ids)
    assert collect(engine, edits) == plain
    assert engine.stats.num_restarts > 0 == engine.stats.num_failed
    engine.close()


def test_words_of_another_length_lead_away_as_with_torch(
    checkpoint: Checkpoint, session: Session
) -> None:
    picture = Image(picture=Pillow.new("RGB", (32, 32), "red"), tokenizer="palette")
    negative = Document(turns=(Turn("user", (picture, Text("x" * 30))),))
    request = edit(session, "red", "a fox", negative_document=negative, negative_prompt="x")
    assert len(request.partial_ids or ()) > len(request.prompt_ids) == len(request.streams[2])
    engine = start_vllm(checkpoint, VllmEngineConfig(compilation="off", num_rows=3))
    assert collect(engine, [request]) == collect(session.engine, [request])
    engine.close()


def test_too_few_rows_are_named_and_serve_the_rest(
    checkpoint: Checkpoint, session: Session, edits: list[SpanRequest]
) -> None:
    engine = start_vllm(checkpoint, VllmEngineConfig(compilation="off", num_rows=2))
    assert engine.max_streams == 2
    with pytest.raises(EngineError, match="takes 3 rows, but vLLM was started with max_num_seqs 2"):
        engine.submit(edits[0])
    two = [replace(edits[0], partial_scale=1.0, max_ids=8)]
    assert collect(engine, two) == collect(session.engine, two)
    engine.close()
