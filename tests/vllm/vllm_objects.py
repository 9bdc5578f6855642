"""What tests on a real vLLM share: configurations, and a loop to compare with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from mmgen.checkpoint import Checkpoint
from mmgen.generate.bench import cache_argument
from mmgen.generate.engine import AbstractEngine, SpanRequest
from mmgen.generate.vllm_config import VllmEngineConfig

__all__ = ["CONFIGS", "collect", "plain_ids"]

CONFIGS = {
    "roomy": VllmEngineConfig(compilation="off", num_rows=48),
    "chunked": VllmEngineConfig(compilation="off", num_rows=32, step_tokens=60),
    "chunked, no prefix cache": VllmEngineConfig(
        compilation="off", num_rows=32, step_tokens=60, prefix_caching=False
    ),
    # 40 blocks of 32 tokens hold a few guided requests to their ends, and five times as many may
    # begin.
    "preempted": VllmEngineConfig(
        compilation="off", num_rows=32, cache_bytes=40 * 2**15, overcommit=5.0
    ),
    "preempted, no prefix cache": VllmEngineConfig(
        compilation="off",
        num_rows=32,
        cache_bytes=40 * 2**15,
        overcommit=5.0,
        prefix_caching=False,
    ),
}


def collect(engine: AbstractEngine, requests: Sequence[SpanRequest]) -> list[list[int]]:
    """Return all ids of each request."""
    ids: list[list[int]] = [[] for _ in requests]
    for step in engine.generate(requests):
        ids[step.request_index].extend(step.ids)
    return ids


def plain_ids(checkpoint: Checkpoint, requests: Sequence[SpanRequest]) -> list[list[int]]:
    """Return what a loop that anyone would write draws, one guided picture after the other."""
    from transformers import AutoModelForCausalLM, DynamicCache

    model: Any = AutoModelForCausalLM.from_pretrained(checkpoint.path, dtype=torch.float32)
    model.eval()
    drawn = []
    for request in requests:
        ids: list[int] = []
        prompts = [request.prompt_ids, request.partial_ids, request.unguided_ids]
        rows = torch.tensor([prompt for prompt in prompts if prompt is not None])
        cache = DynamicCache(config=model.config)
        past = {cache_argument(model): cache}
        for step in range(request.max_ids):
            with torch.inference_mode():
                found = model(input_ids=rows, **past, use_cache=True).logits[:, -1]
            whole, *parts, blank = found
            scores, led = blank, blank
            for part in parts:
                scores, led = blank + request.partial_scale * (part - blank), part
            scores = scores + request.guidance_scale * (whole - led)
            (allowed,) = request.constraint.at(step)
            ids.append(allowed.start + int(scores[allowed.start : allowed.stop].argmax()))
            rows = torch.tensor([[ids[-1]]] * len(rows))
        drawn.append(ids)
    return drawn
