"""How fast pictures are generated, beside a plain loop over the same checkpoint in `transformers`.

Both draw guided pictures with the same sampling settings in the same number format, in turns, so
that whatever else the machine does falls on both. The plain loop is what one would write:
conditional and unconditional rows in one batch, a dynamic cache, all logits. Several pictures it
draws either as one larger batch or one after another, and both are told.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any

import torch

from mmgen.checkpoint import Checkpoint, open_checkpoint
from mmgen.errors import SettingsError
from mmgen.generate.engine import SpanRequest
from mmgen.generate.requests import DrawRequest
from mmgen.generate.session import Session
from mmgen.generate.torch_engine import TorchEngine
from mmgen.model import Decoder

__all__ = [
    "GenerationBench",
    "GenerationBenchConfig",
    "GenerationSpeed",
    "by_engine",
    "by_plain_loop",
    "cache_argument",
    "guided_request",
    "measure_generation",
    "plain_model",
    "timed",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationBenchConfig:
    """What is measured."""

    counts: tuple[int, ...] = (1, 16)
    """Pictures at once."""
    repeats: int = 5
    """Measurements of each, after one that is not counted."""
    prompt: str = "a red circle"
    """What is drawn."""
    guidance_scale: float = 3.0
    """Must not be 1, which would be no guidance."""

    def __post_init__(self) -> None:
        if not self.counts or min(self.counts) < 1 or self.repeats < 1:
            raise SettingsError(
                f"counts and repeats must be 1 or more, got {self.counts} and {self.repeats}"
            )
        if self.guidance_scale == 1.0:
            raise SettingsError("guided pictures are measured; guidance 1 would be none")


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationSpeed:
    """Medians for one number of pictures at once."""

    num_pictures: int
    num_codes: int
    """Codes of one picture."""
    seconds: float
    """All pictures, by the engine."""
    plain_seconds: float
    """All pictures, by the plain loop, as one batch."""
    ratio: float
    """Median over repeats of how many times faster the engine was than the batch next to it."""
    one_by_one_seconds: float
    """All pictures, by the plain loop, one after another."""
    one_by_one_ratio: float
    """How many times faster the engine was than that."""

    @property
    def codes_per_second(self) -> float:
        """Codes of the engine, those of all pictures together."""
        return self.num_pictures * self.num_codes / self.seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationBench:
    """The result of `measure_generation`."""

    num_parameters: int
    num_threads: int
    speeds: tuple[GenerationSpeed, ...]
    bytes_per_step: int
    """Weights that one step of one picture reads."""
    read_rate: float
    """Bytes per second at which this machine reads that many."""
    bandwidth_share: float
    """Share of that rate reached while drawing the smallest number of pictures measured."""


def measure_generation(
    model: Path | str | None = None, config: GenerationBenchConfig | None = None
) -> GenerationBench:
    """Measure guided generation of a checkpoint on this machine's CPU. Needs transformers.

    Args:
        model: a checkpoint directory or the name of an installed model; without it, the default.
    """
    config = config or GenerationBenchConfig()
    checkpoint = open_checkpoint(model)
    decoder = checkpoint.load_decoder(torch.float32)
    plain = plain_model(checkpoint)
    request = guided_request(checkpoint, decoder, config)
    speeds = tuple(
        _speed(decoder, plain, request, count, config.repeats) for count in config.counts
    )
    num_bytes = _bytes_per_step(decoder, request)
    read_rate = _read_rate(num_bytes, config.repeats)
    fewest = min(speeds, key=lambda speed: speed.num_pictures)
    step_seconds = fewest.seconds / request.max_ids
    return GenerationBench(
        num_parameters=decoder.config.num_parameters,
        num_threads=torch.get_num_threads(),
        speeds=speeds,
        bytes_per_step=num_bytes,
        read_rate=read_rate,
        bandwidth_share=num_bytes / step_seconds / read_rate,
    )


def _transformers() -> Any:
    """Return the package, which is no dependency of ours."""
    try:
        return import_module("transformers")
    except ImportError as error:
        raise SettingsError(
            "the comparison needs transformers, which is not installed; install mmgen[test]"
        ) from error


def plain_model(checkpoint: Checkpoint) -> Any:
    """Return the decoder as transformers has it, in float32."""
    models = _transformers().AutoModelForCausalLM
    return models.from_pretrained(checkpoint.path, dtype=torch.float32).eval()


def guided_request(
    checkpoint: Checkpoint, decoder: Decoder, config: GenerationBenchConfig
) -> SpanRequest:
    """Return the picture that is drawn, as a request to an engine."""
    session = Session(checkpoint, TorchEngine(decoder), parts="decoder")
    drawing = DrawRequest(prompt=config.prompt, seed=0, guidance_scale=config.guidance_scale)
    return session.begin(0, drawing).span


def _speed(
    decoder: Decoder, plain: Any, request: SpanRequest, count: int, repeats: int
) -> GenerationSpeed:
    requests = [replace(request, seed=seed) for seed in range(count)]
    times = []
    for _ in range(repeats + 1):
        ours = timed(lambda: by_engine(decoder, requests))
        batch = timed(lambda: by_plain_loop(plain, request, count))
        # One picture takes as long as the next, so that one is enough.
        single = batch if count == 1 else timed(lambda: by_plain_loop(plain, request, 1))
        times.append((ours, batch, count * single))
    times = times[1:]
    return GenerationSpeed(
        num_pictures=count,
        num_codes=request.max_ids,
        seconds=median(ours for ours, _, _ in times),
        plain_seconds=median(batch for _, batch, _ in times),
        ratio=median(batch / ours for ours, batch, _ in times),
        one_by_one_seconds=median(singles for _, _, singles in times),
        one_by_one_ratio=median(singles / ours for ours, _, singles in times),
    )


def timed(action: Callable[[], object]) -> float:
    """Return the seconds that something takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def by_engine(decoder: Decoder, requests: Sequence[SpanRequest]) -> int:
    """Draw with a fresh torch engine, which holds no prompt yet; return the number of codes."""
    engine = TorchEngine(decoder, num_rows=max(64, 2 * len(requests)))
    return sum(len(step.ids) for step in engine.generate(requests))


def cache_argument(model: Any) -> str:
    """Return what a model of transformers calls its cache, which changed in the course of 5."""
    has_new_name = "cache" in inspect.signature(model.forward).parameters
    return "cache" if has_new_name else "past_key_values"


@torch.inference_mode()
def by_plain_loop(model: Any, request: SpanRequest, count: int) -> torch.Tensor:
    """Draw `count` pictures as one batch of guided and unguided rows; return their ids."""
    assert request.unguided_ids is not None
    ids = torch.tensor([request.prompt_ids] * count + [request.unguided_ids] * count)
    cache = _transformers().DynamicCache(config=model.config)
    past = {cache_argument(model): cache}
    generator = torch.Generator().manual_seed(request.seed)
    drawn = []
    for step in range(request.max_ids):
        out = model(input_ids=ids, **past, use_cache=True, logits_to_keep=1)
        guided, unguided = out.logits[:, -1].chunk(2)
        logits = unguided + request.guidance_scale * (guided - unguided)
        allowed = torch.full_like(logits, -torch.inf)
        for choice in request.constraint.at(step):
            allowed[:, choice.start : choice.stop] = 0
        logits = (logits + allowed) / (request.sampling.temperature or 1.0)
        if request.sampling.top_k is not None:
            best = logits.topk(min(request.sampling.top_k, logits.shape[1])).values
            logits = logits.masked_fill(logits < best[:, -1:], -torch.inf)
        if request.sampling.top_p is not None:
            ranked, order = logits.softmax(dim=-1).sort(descending=True)
            beyond = ranked.cumsum(dim=-1) - ranked >= request.sampling.top_p
            logits = logits.masked_fill(beyond.scatter(1, order, beyond), -torch.inf)
        chosen = torch.multinomial(logits.softmax(dim=-1), 1, generator=generator)
        drawn.append(chosen)
        ids = torch.cat([chosen, chosen])
    return torch.cat(drawn, dim=1)


def _bytes_per_step(decoder: Decoder, request: SpanRequest) -> int:
    """Return the bytes of all blocks and of the scored part of the output layer."""
    blocks = sum(weight.numel() * weight.element_size() for weight in decoder.blocks.parameters())
    scored = sum(len(ids) for ids in request.constraint.at(0))
    table = decoder.head.weight
    return blocks + scored * table.shape[1] * table.element_size()


def _read_rate(num_bytes: int, repeats: int) -> float:
    """Return bytes per second of reading a block of memory of this size again and again."""
    block = torch.ones(max(1, num_bytes // 4))
    times = [timed(block.sum) for _ in range(4 * repeats + 1)]
    return num_bytes / median(times[1:])
