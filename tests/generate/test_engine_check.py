from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mmgen.errors import EngineError
from mmgen.generate.engine import AbstractEngine, SpanRequest, Step
from mmgen.generate.engine_check import check_engine
from mmgen.generate.session import Session
from mmgen.generate.torch_engine import TorchEngine
from mmgen.model import Decoder


class Distorted(AbstractEngine):
    """Serves each request as another one, and says nothing of it."""

    def __init__(self, engine: AbstractEngine, **change: Any) -> None:
        self._engine = engine
        self._change = change

    @property
    def context_length(self) -> int:
        return self._engine.context_length

    @property
    def num_unfinished(self) -> int:
        return self._engine.num_unfinished

    def submit(self, request: SpanRequest) -> int:
        changed = {
            name: value(request) if callable(value) else value
            for name, value in self._change.items()
        }
        return self._engine.submit(replace(request, **changed))

    def step(self) -> list[Step]:
        return self._engine.step()

    def cancel(self, request_index: int) -> None:
        self._engine.cancel(request_index)


@pytest.fixture(scope="module")
def decoder(session: Session) -> Decoder:
    return session.checkpoint.load_decoder()


def test_the_torch_engine_passes(decoder: Decoder) -> None:
    check_engine(TorchEngine(decoder), decoder)
    # Too small for parts that are guided apart, which it refuses, but not for the rest.
    check_engine(TorchEngine(decoder, num_rows=2), decoder)


@pytest.mark.parametrize(
    "change",
    [
        {
            "unguided_ids": None,
            "guidance_scale": 1.0,
            "partial_ids": None,
            "partial_scale": 1.0,
        },
        {"partial_ids": None, "partial_scale": 1.0},
        {
            "partial_scale": lambda request: (
                request.partial_scale + 0.4 * (request.partial_scale > 1)
            )
        },
        {"partial_ids": lambda request: request.partial_ids and request.partial_ids[::-1]},
        {"guidance_scale": lambda request: request.guidance_scale + 0.4 * request.is_guided},
        {"seed": 7},
        {"prompt_ids": lambda request: request.prompt_ids[::-1]},
        {"max_ids": 5},
    ],
    ids=[
        "no guidance",
        "parts together",
        "another part's guidance",
        "another part",
        "another guidance",
        "other noise",
        "another prompt",
        "too few",
    ],
)
def test_an_engine_that_draws_something_else_does_not(
    decoder: Decoder, change: dict[str, Any]
) -> None:
    with pytest.raises(EngineError, match="failed its self-test"):
        check_engine(Distorted(TorchEngine(decoder), **change), decoder)


def test_weights_of_another_model_are_found(session: Session, decoder: Decoder) -> None:
    other = session.checkpoint.load_decoder()
    other.embedding.weight.data[5:90] *= 1.1
    with pytest.raises(EngineError, match="its pictures would be wrong"):
        check_engine(TorchEngine(other), decoder)
