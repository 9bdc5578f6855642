"""What pictures cost on vLLM: beside a plain `transformers` loop, and beside vLLM itself.

All take turns in one process, in float32, so that whatever else the machine does falls on all.
The plain loop is the one of `mmgen bench generate`. vLLM itself is a second engine without our
processor that samples as many rows of as many ids freely: no guidance, no constraint, no pairs.
What is missing to its rate is what those cost.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import torch
from vllm import SamplingParams as VllmSamplingParams
from vllm import TokensPrompt
from vllm.v1.engine.llm_engine import LLMEngine

from mmgen.checkpoint import open_checkpoint
from mmgen.generate.bench import (
    GenerationBenchConfig,
    by_engine,
    by_plain_loop,
    guided_request,
    plain_model,
    timed,
)
from mmgen.generate.engine import SpanRequest
from mmgen.generate.vllm_config import VllmEngineConfig
from mmgen.generate.vllm_engine import VllmEngine
from mmgen.generate.vllm_launch import launch
from mmgen.generate.vllm_start import start_vllm

__all__ = ["VllmBench", "VllmSpeed", "measure_vllm"]


@dataclass(frozen=True, slots=True, kw_only=True)
class VllmSpeed:
    """Medians for one number of guided pictures at once."""

    num_pictures: int
    num_codes: int
    """Codes of one picture."""
    seconds: float
    """All pictures, by the engine on vLLM."""
    first_code_seconds: float
    """Until each picture has a code."""
    torch_seconds: float
    """All pictures, by the torch engine."""
    plain_seconds: float
    """All pictures, by the plain loop, as one batch."""
    raw_seconds: float
    """Two rows for each picture, by vLLM itself."""
    plain_ratio: float
    """How many times faster the engine was than the plain loop next to it."""
    raw_ratio: float
    """The engine's share of the rate of vLLM itself next to it."""

    @property
    def codes_per_second(self) -> float:
        """Codes of the engine, those of all pictures together."""
        return self.num_pictures * self.num_codes / self.seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class VllmBench:
    """The result of `measure_vllm`."""

    num_parameters: int
    num_threads: int
    start_seconds: float
    """From nothing to an engine that has passed its self-test."""
    num_restarts: int
    """Times that a pair came apart."""
    speeds: tuple[VllmSpeed, ...]


def measure_vllm(
    model: Path | str | None = None,
    config: GenerationBenchConfig | None = None,
    *,
    compilation: str | None = None,
) -> VllmBench:
    """Measure guided generation of a checkpoint on vLLM. Needs transformers.

    Args:
        model: a checkpoint directory or the name of an installed model; without it, the default.
        compilation: see `VllmEngineConfig`.
    """
    config = config or GenerationBenchConfig()
    checkpoint = open_checkpoint(model)
    decoder = checkpoint.load_decoder(torch.float32)
    plain = plain_model(checkpoint)
    request = guided_request(checkpoint, decoder, config)
    settings = VllmEngineConfig(
        num_rows=max(64, 2 * max(config.counts)),
        dtype="float32",
        compilation="off" if compilation == "off" else "on",
    )
    begun = time.perf_counter()
    engine = start_vllm(checkpoint, settings)
    start_seconds = time.perf_counter() - begun
    raw, _ = launch(checkpoint, settings, processors=())
    speeds = []
    for count in config.counts:
        requests = [replace(request, seed=seed) for seed in range(count)]
        times: list[tuple[float, float, float, float, float]] = []
        for _ in range(config.repeats + 1):
            ours, first = _by_vllm_engine(engine, requests)
            unguided = timed(lambda rows=requests: _by_vllm(raw, rows))  # type: ignore[misc]
            by_torch = timed(lambda rows=requests: by_engine(decoder, rows))  # type: ignore[misc]
            batch = timed(lambda n=count: by_plain_loop(plain, request, n))  # type: ignore[misc]
            times.append((ours, first, by_torch, batch, unguided))
        times = times[1:]
        speeds.append(
            VllmSpeed(
                num_pictures=count,
                num_codes=request.max_ids,
                seconds=median(ours for ours, *_ in times),
                first_code_seconds=median(first for _, first, *_ in times),
                torch_seconds=median(item[2] for item in times),
                plain_seconds=median(item[3] for item in times),
                raw_seconds=median(item[4] for item in times),
                plain_ratio=median(item[3] / item[0] for item in times),
                raw_ratio=median(item[4] / item[0] for item in times),
            )
        )
    return VllmBench(
        num_parameters=decoder.config.num_parameters,
        num_threads=torch.get_num_threads(),
        start_seconds=start_seconds,
        num_restarts=engine.stats.num_restarts,
        speeds=tuple(speeds),
    )


def _by_vllm_engine(engine: VllmEngine, requests: Sequence[SpanRequest]) -> tuple[float, float]:
    """Return the seconds until all pictures are there, and until each has a code."""
    begun = time.perf_counter()
    open_, first = set(range(len(requests))), 0.0
    for step in engine.generate(requests):
        open_.discard(step.request_index)
        if not open_ and not first:
            first = time.perf_counter() - begun
    return time.perf_counter() - begun, first


def _by_vllm(llm: LLMEngine, requests: Sequence[SpanRequest]) -> None:
    """Sample as many rows and ids as the requests have, without a constraint."""
    for number, request in enumerate(requests):
        assert request.unguided_ids is not None
        for half, prompt in enumerate((request.prompt_ids, request.unguided_ids)):
            llm.add_request(
                f"{number}.{half}",
                TokensPrompt(prompt_token_ids=list(prompt)),
                VllmSamplingParams(
                    temperature=request.sampling.temperature,
                    top_k=request.sampling.top_k or 0,
                    top_p=request.sampling.top_p or 1.0,
                    max_tokens=request.max_ids,
                    ignore_eos=True,
                    detokenize=False,
                ),
            )
    while llm.has_unfinished_requests():
        llm.step()
