"""Proof at start-up that an engine draws what the decoder says.

An engine that is not ours can go wrong without a trace: guidance that is quietly off, rows that are
mixed up, weights read in another order. Then every picture is wrong and none looks broken. So a few
ids are drawn without guidance, with it, and with the parts of a condition guided apart, all at
once, and each is held against the scores that the decoder itself gives at that place. An engine
that fails is not used.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from mmgen.errors import EngineError
from mmgen.generate.engine import AbstractEngine, Constraint, SamplingParams, SpanRequest
from mmgen.generate.sampling import SamplingRows, guide, guide_apart, gumbel_noise, keep_top
from mmgen.model import Decoder

__all__ = ["check_engine"]

NUM_IDS = 12
NUM_PROMPT_IDS = 9
TOLERANCES = {torch.float32: 1e-3, torch.bfloat16: 0.5}
"""How much worse than the best a drawn id may score. The decoder's scores differ by a few units."""


@torch.inference_mode()
def check_engine(
    engine: AbstractEngine, decoder: Decoder, *, dtype: torch.dtype = torch.float32
) -> None:
    """Draw a few ids and compare them with a recomputation.

    Args:
        engine: has no requests of others.
        decoder: with the same weights, in float32.
        dtype: the engine's number format, which decides what counts as a difference.

    Raises:
        EngineError: an id was drawn that the decoder does not score best.
    """
    requests = [
        request
        for request in _requests(decoder, engine.context_length)
        if len(request.streams) <= engine.max_streams
    ]
    drawn: list[list[int]] = [[] for _ in requests]
    for step in engine.generate(requests):
        drawn[step.request_index] += step.ids
    for number, (request, ids) in enumerate(zip(requests, drawn, strict=True)):
        kind = "guided" if request.is_guided else "unguided"
        if len(ids) != request.max_ids:
            raise EngineError(
                f"the engine failed its self-test: it drew {len(ids)} {kind} ids of "
                f"{request.max_ids}; do not use it"
            )
        for place, shortfall in enumerate(_shortfalls(decoder, request, ids)):
            if not shortfall <= TOLERANCES[dtype]:
                raise EngineError(
                    f"the engine failed its self-test: {kind} request {number} drew id "
                    f"{ids[place]} at step {place}, which scores {shortfall:.4g} less than the "
                    "decoder's own choice; its pictures would be wrong, do not use it"
                )


def _requests(decoder: Decoder, context_length: int) -> list[SpanRequest]:
    """Return guided and unguided requests with every kind of sampling, over all of the ids."""
    size = decoder.config.vocab_size
    half = size // 2
    num_prompt_ids = min(NUM_PROMPT_IDS, context_length // 2)
    first = SpanRequest(
        prompt_ids=tuple((7 * place + 1) % size for place in range(num_prompt_ids)),
        unguided_ids=tuple((5 * place + 2) % size for place in range(num_prompt_ids)),
        guidance_scale=3.0,
        # Two parts with a gap, then one of them: as text has, and codes of several codebooks.
        constraint=Constraint(((range(half // 2), range(half, size)), (range(half, size),))),
        max_ids=min(NUM_IDS, context_length - num_prompt_ids),
        seed=1,
        sampling=SamplingParams(temperature=0),
    )
    sampled = replace(first, seed=2, sampling=SamplingParams(temperature=1.0, top_k=50, top_p=0.9))
    plain = replace(sampled, unguided_ids=None, guidance_scale=1.0)
    weak = replace(first, guidance_scale=0.5, prompt_ids=first.prompt_ids[::-1])
    apart = replace(first, partial_ids=plain.prompt_ids[::-1], partial_scale=1.5)
    return [first, sampled, plain, weak, apart]


def _shortfalls(decoder: Decoder, request: SpanRequest, ids: list[int]) -> list[float]:
    """Return by how much each id scores less than the best one, noise included."""
    scores, *others = (_logits(decoder, stream, ids) for stream in request.streams)
    scale = torch.full((len(ids), 1), request.guidance_scale)
    match others:
        case [blank]:
            scores = guide(scores, blank, scale)
        case [partial, blank]:
            partial_scale = torch.full((len(ids), 1), request.partial_scale)
            scores = guide_apart(scores, partial, blank, partial_scale, scale)
    rows = SamplingRows.stack([request.sampling], [request.seed])
    found: list[float] = []
    for step, id_ in enumerate(ids):
        allowed = torch.cat([torch.arange(r.start, r.stop) for r in request.constraint.at(step)])
        if id_ not in allowed:
            return [*found, float("inf")]
        logits = scores[step, allowed].unsqueeze(0)
        noise = gumbel_noise(rows.seeds, torch.tensor([[step]]), allowed)
        totals = torch.addcmul(keep_top(logits, rows), noise, rows.temperatures)[0]
        found.append((totals.max() - totals[allowed == id_][0]).item())
    return found


def _logits(decoder: Decoder, prompt_ids: tuple[int, ...], ids: list[int]) -> torch.Tensor:
    """Return float32 `[ids, vocab_size]`: what follows the prompt and each id but the last."""
    device = decoder.embedding.weight.device
    sequence = torch.tensor([[*prompt_ids, *ids[:-1]]], device=device)
    positions = torch.arange(sequence.shape[1], device=device).unsqueeze(0)
    hidden = decoder(sequence, positions)[0, len(prompt_ids) - 1 :]
    return decoder.logits(hidden).float().cpu()
