"""Negative prompts and answers of a given form on a real vLLM, against the torch engine."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("vllm", reason="vLLM is not installed; .ci/run tests this with it")

from mmgen.checkpoint import Checkpoint
from mmgen.errors import EngineError
from mmgen.generate.engine import AbstractEngine, SamplingParams, SpanRequest, Step
from mmgen.generate.forms import Forms
from mmgen.generate.requests import CaptionRequest, DrawRequest
from mmgen.generate.session import Session
from mmgen.generate.vllm_config import VllmEngineConfig
from mmgen.generate.vllm_engine import VllmEngine
from mmgen.generate.vllm_start import start_vllm

# What vLLM does at work is not ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore")

SCHEMA = {
    "type": "object",
    "properties": {"kind": {"enum": ["animal", "plant"]}, "count": {"type": "integer"}},
    "required": ["kind", "count"],
    "additionalProperties": False,
}
HOT = SamplingParams(temperature=1.5)


@pytest.fixture(scope="module")
def engine(checkpoint: Checkpoint) -> Iterator[VllmEngine]:
    """An engine that reads a prompt in steps of 44 tokens."""
    config = VllmEngineConfig(compilation="off", num_rows=16, step_tokens=104)
    engine = start_vllm(checkpoint, config)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def forms(session: Session) -> Forms:
    return Forms(session.codec.vocabulary, session.codec.text_tokenizer)


def pictures(session: Session, negative_prompts: Sequence[str | None]) -> list[SpanRequest]:
    return [
        session.begin(
            0,
            DrawRequest(
                prompt="a red fox",
                seed=seed,
                guidance_scale=2.5,
                negative_prompt=negative,
                sampling=SamplingParams(temperature=float(seed % 2), top_k=60),
            ),
        ).span
        for seed, negative in enumerate(negative_prompts)
    ]


def answers(session: Session, forms: Forms) -> list[SpanRequest]:
    rules = [
        forms.json(SCHEMA),
        None,
        forms.regex("[A-F]{2}-[0-9]{3}"),
        forms.choice(["a red fox", "a fox"]),
        forms.grammar('start: part\npart: "(" part ")" | "x"\n'),
    ]
    array = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    request = CaptionRequest(picture=Image.fromarray(array), sampling=HOT, max_text_ids=50)
    return [
        session.begin(0, replace(request, seed=seed, rule=rule)).span
        for seed, rule in enumerate(rules + rules)
    ]


def collect(engine: AbstractEngine, requests: Sequence[SpanRequest]) -> list[list[int]]:
    ids: list[list[int]] = [[] for _ in requests]
    for step in engine.generate(requests):
        ids[step.request_index].extend(step.ids)
    return ids


def test_negative_prompts_of_any_length_lead_away_as_with_torch(
    engine: VllmEngine, session: Session
) -> None:
    negatives = ["a fox", "what is this? " * 6, None, "a red box", "a circle beside a fox", "x"]
    requests = pictures(session, negatives)
    lengths = {len(request.unguided_ids or ()) - len(request.prompt_ids) for request in requests}
    assert min(lengths) < 0 < max(lengths)
    engine.reset_stats()
    expected = collect(session.engine, requests)
    assert collect(engine, requests) == expected
    # The longest is read in more steps than its prompt, so that its rows first come apart.
    assert engine.stats.num_restarts > 0 == engine.stats.num_failed
    engine.reset_stats()
    assert collect(engine, [requests[0], requests[3]]) == [expected[0], expected[3]]
    assert engine.stats.num_restarts == 0
    assert expected[0] != collect(session.engine, pictures(session, [None]))[0]


def test_answers_of_a_form_are_those_of_torch(
    engine: VllmEngine, session: Session, forms: Forms
) -> None:
    requests = answers(session, forms)
    expected = collect(session.engine, requests)
    assert collect(engine, requests) == expected
    assert [collect(engine, [request])[0] for request in requests[:3]] == expected[:3]
    crowd = [*pictures(session, [None] * 4), *requests, *pictures(session, ["a fox"] * 2)]
    assert collect(engine, crowd)[4:14] == expected
    end_id = session.codec.vocabulary.end_id
    said = [
        session.codec.text_tokenizer.decode([id_ for id_ in ids if id_ != end_id])
        for ids in expected
    ]
    assert json.loads(said[0])["kind"] in ("animal", "plant")
    assert said[3] in ("a red fox", "a fox")


def test_a_guided_answer_of_a_form_survives_the_loss_of_a_half(
    engine: VllmEngine, session: Session, forms: Forms
) -> None:
    plain = answers(session, forms)[0]
    blank = tuple(reversed(plain.prompt_ids))
    request = replace(plain, unguided_ids=blank, guidance_scale=1.5)
    (expected,) = collect(session.engine, [request])
    engine.reset_stats()
    index = engine.submit(request)
    ids = [id_ for _ in range(6) for step in engine.step() for id_ in step.ids]
    assert ids
    engine._llm.abort_request([engine._flights[index].rows[1].name])
    while engine.num_unfinished:
        ids += [id_ for step in engine.step() for id_ in step.ids]
    assert ids == expected
    assert engine.stats.num_restarts >= 1


def test_a_form_that_cannot_go_on_ends_its_request_alone(
    engine: VllmEngine, session: Session, forms: Forms
) -> None:
    request = replace(answers(session, forms)[0], rule=forms.regex(r"xx\)"))
    # Without the closing parenthesis among the ids, nothing follows the second letter.
    (close,) = session.codec.text_tokenizer.encode(")")
    (ranges,) = request.constraint.cycle
    choices = tuple(
        part if close in ids else ids
        for ids in ranges
        for part in (
            (range(ids.start, close), range(close + 1, ids.stop)) if close in ids else (ids,)
        )
    )
    stuck = replace(request, constraint=replace(request.constraint, cycle=(choices,)))
    other = pictures(session, [None])[0]

    def ends(engine: AbstractEngine) -> tuple[list[Step], list[int]]:
        first, second = engine.submit(stuck), engine.submit(other)
        steps: list[Step] = []
        while engine.num_unfinished:
            steps += engine.step()
        drawn = [id_ for step in steps if step.request_index == second for id_ in step.ids]
        return [step for step in steps if step.request_index == first], drawn

    ours, drawn = ends(engine)
    theirs, expected = ends(session.engine)
    assert drawn == expected
    assert [id_ for step in ours for id_ in step.ids] == [id_ for s in theirs for id_ in s.ids]
    assert isinstance(ours[-1].error, EngineError) and theirs[-1].error is not None
    assert str(ours[-1].error) == str(theirs[-1].error)
    assert "cannot go on in the form it must have" in str(ours[-1].error)


def test_workers_elsewhere_take_no_forms(
    engine: VllmEngine, session: Session, forms: Forms, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine._llm.vllm_config.parallel_config, "world_size", 2)
    assert not engine.takes_rules
    with pytest.raises(EngineError, match="cannot follow a rule; use one worker"):
        engine.submit(answers(session, forms)[0])
