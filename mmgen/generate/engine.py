"""The engine contract: token ids in, token ids out, many requests at once as a stream of steps.

A request is one span: a stretch of text up to a stop id, or the codes of one image. It says which
ids may come next, how to choose among them, and how strongly the condition guides the choice. An
engine knows nothing of pictures or text; sessions build requests and read the steps.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from mmgen.errors import EngineError, SettingsError

__all__ = [
    "MAX_SEED",
    "MAX_STREAMS",
    "AbstractEngine",
    "AbstractRule",
    "AbstractRuleState",
    "Constraint",
    "FinishReason",
    "SamplingParams",
    "SpanRequest",
    "Step",
    "check_request",
]

MAX_SEED = 2**63 - 1
"""Largest seed."""

MAX_STREAMS = 3
"""Most prompts that one request can have."""

FinishReason: TypeAlias = Literal["stop", "length"]
"""Why a span ended: a stop id was drawn, or all its ids are there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How an id is chosen from its scores."""

    temperature: float = 1.0
    """Spread of the choice; 0 takes the best id."""
    top_k: int | None = None
    """Only this many of the best ids are considered; None for all."""
    top_p: float | None = None
    """Only the best ids that together have this probability are considered; None for all."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise SettingsError(f"temperature must be 0 or more, got {self.temperature}")
        if self.top_k is not None and self.top_k < 1:
            raise SettingsError(
                f"top-k must be 1 or more, got {self.top_k}; leave it out to consider every id"
            )
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise SettingsError(f"top-p must be above 0 and at most 1, got {self.top_p}")


@dataclass(frozen=True, slots=True)
class Constraint:
    """Which ids may come at each step: the ranges of `cycle[step % len(cycle)]`.

    An image takes one range per codebook in turn, text the same few ranges at every step.
    """

    cycle: tuple[tuple[range, ...], ...]

    def __post_init__(self) -> None:
        if not self.cycle or not all(any(choice) for choice in self.cycle):
            raise SettingsError(f"a constraint must allow some id at every step, got {self.cycle}")

    def at(self, step: int) -> tuple[range, ...]:
        """Return the allowed ranges of one step."""
        return self.cycle[step % len(self.cycle)]

    def allows(self, id_: int) -> bool:
        """Return whether some step allows the id."""
        return any(id_ in ids for choice in self.cycle for ids in choice)

    @property
    def num_rows_needed(self) -> int:
        """One more than the largest id allowed."""
        return max(ids.stop for choice in self.cycle for ids in choice)


class AbstractRuleState(ABC):
    """How far one span has come under its rule. For one thread at a time."""

    @abstractmethod
    def allowed(self) -> npt.NDArray[np.bool_]:
        """Return for each token id from 0 on whether it may come next; further ones may not.

        Where nothing is allowed, the engine gives the request up.
        """

    @abstractmethod
    def advance(self, id_: int) -> None:
        """Take the id that came, one of those allowed."""


class AbstractRule(ABC):
    """Narrows a constraint from step to step, by the ids that came: a form that text must have."""

    @abstractmethod
    def begin(self) -> AbstractRuleState:
        """Return the state before the first id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanRequest:
    """One span to be generated. Several samples of one prompt are requests with other seeds."""

    prompt_ids: tuple[int, ...]
    """Everything before the span."""
    constraint: Constraint
    """Which ids may come."""
    max_ids: int
    """Ids wanted; fewer come only if a stop id is drawn."""
    seed: int
    """What the noise is drawn from."""
    sampling: SamplingParams = SamplingParams()
    """How ids are chosen."""
    stop_ids: frozenset[int] = frozenset()
    """Ids that end the span; the id itself is still delivered."""
    unguided_ids: tuple[int, ...] | None = None
    """What guidance leads away from: the prompt with its condition blanked, which makes it equally
    long, or another condition in its place; None for a request without guidance."""
    guidance_scale: float = 1.0
    """`unguided + scale * (guided - unguided)`; 1 leaves the unguided prompt without effect."""
    partial_ids: tuple[int, ...] | None = None
    """The prompt with a part of its condition blanked, so that the parts count apart, as Brooks et
    al. (2023, InstructPix2Pix) guide a picture and what is to be changed in it:
    `unguided + partial_scale * (partial - unguided) + guidance_scale * (guided - partial)`. None
    for a condition that counts as a whole."""
    partial_scale: float = 1.0
    """How strongly the part that `partial_ids` keeps counts; 1 leaves the unguided prompt without
    effect, and as much as `guidance_scale` leaves this one without."""
    rule: AbstractRule | None = None
    """What of the constraint may come, step by step; None for all of it."""

    def __post_init__(self) -> None:
        if not self.prompt_ids:
            raise SettingsError("a request needs at least one prompt id")
        if self.max_ids < 1:
            raise SettingsError(f"a request must want 1 id or more, got {self.max_ids}")
        if not 0 <= self.seed <= MAX_SEED:
            raise SettingsError(f"a seed must be within 0 and {MAX_SEED}, got {self.seed}")
        if not math.isfinite(self.guidance_scale) or self.guidance_scale < 0:
            raise SettingsError(f"guidance must be 0 or more, got {self.guidance_scale}")
        if self.unguided_ids is None:
            if self.guidance_scale != 1.0:
                raise SettingsError(
                    f"guidance {self.guidance_scale} needs an unguided prompt, got none"
                )
        elif not self.unguided_ids:
            raise SettingsError("an unguided prompt needs at least one id")
        if not math.isfinite(self.partial_scale) or self.partial_scale < 0:
            raise SettingsError(f"guidance of a part must be 0 or more, got {self.partial_scale}")
        if self.partial_ids is None:
            if self.partial_scale != 1.0:
                raise SettingsError(
                    f"guidance {self.partial_scale} of a part needs a prompt that keeps it, got "
                    "none"
                )
        elif not self.partial_ids or self.unguided_ids is None:
            raise SettingsError(
                "a prompt that keeps a part needs at least one id, and an unguided one beside it"
            )
        for id_ in sorted(self.stop_ids):
            if not self.constraint.allows(id_):
                raise SettingsError(f"stop id {id_} can never come: no step allows it")

    @property
    def streams(self) -> tuple[tuple[int, ...], ...]:
        """The prompts that have any effect: the whole one first, the unguided one last.

        Of two, `guidance_scale` leads from the second to the first.
        """
        if self.unguided_ids is None:
            return (self.prompt_ids,)
        if self.partial_ids is None or self.partial_scale == self.guidance_scale:
            is_whole = self.guidance_scale == 1.0
            return (self.prompt_ids,) if is_whole else (self.prompt_ids, self.unguided_ids)
        if self.partial_scale == 1.0:
            return (self.prompt_ids, self.partial_ids)
        return (self.prompt_ids, self.partial_ids, self.unguided_ids)

    @property
    def is_guided(self) -> bool:
        """Whether a prompt beside the whole one has any effect."""
        return len(self.streams) > 1

    @property
    def applied_partial_scale(self) -> float | None:
        """How strongly a part counts by itself; None for a condition that counts as a whole."""
        return None if self.partial_ids is None else self.partial_scale


@dataclass(frozen=True, slots=True)
class Step:
    """New ids of one request."""

    request_index: int
    """What `submit` returned; for `generate`, the index among its requests."""
    ids: tuple[int, ...]
    """The ids that follow those of earlier steps."""
    finish_reason: FinishReason | None
    """Set on the last step of a request."""
    guidance_scale: float
    """The guidance that was applied to these ids."""
    error: EngineError | None = None
    """Why the engine gave the request up; other requests go on."""
    num_restarts: int = 0
    """Times that the engine had to take the request up again, so far."""
    num_cached_ids: int | None = None
    """Prompt ids that did not have to be read again; None where the engine does not count them."""
    partial_scale: float | None = None
    """The guidance of a part that was applied; None where the condition counted as a whole."""

    @property
    def is_finished(self) -> bool:
        """Whether this is the last step of its request."""
        return self.finish_reason is not None or self.error is not None


def check_request(request: SpanRequest, vocab_size: int, context_length: int) -> None:
    """Refuse a request that a decoder cannot serve.

    Args:
        vocab_size: ids the decoder has.
        context_length: most ids of a prompt and its span together.

    Raises:
        EngineError: it names ids that the decoder lacks, or is too long.
    """
    prompts = (request.prompt_ids, request.partial_ids or (), request.unguided_ids or ())
    for ids in prompts:
        wrong = next((id_ for id_ in ids if not 0 <= id_ < vocab_size), None)
        if wrong is not None:
            raise EngineError(f"prompt id {wrong} is outside the decoder's {vocab_size} ids")
    if request.constraint.num_rows_needed > vocab_size:
        raise EngineError(
            f"a step may take id {request.constraint.num_rows_needed - 1}, but the decoder "
            f"has {vocab_size} ids"
        )
    num_prompt_ids = max(map(len, prompts))
    total = num_prompt_ids + request.max_ids
    if total > context_length:
        raise EngineError(
            f"the prompt has {num_prompt_ids} tokens and {request.max_ids} are to "
            f"follow, {total} of {context_length} that fit; shorten the prompt"
        )


class AbstractEngine(ABC):
    """Turns requests into ids. Not for use from several threads at once."""

    @property
    @abstractmethod
    def context_length(self) -> int:
        """Most ids that a prompt and its span may have together."""

    @property
    @abstractmethod
    def num_unfinished(self) -> int:
        """Requests that wait or run."""

    @property
    def max_streams(self) -> int:
        """Most prompts that one request may have; `submit` refuses those that have more."""
        return MAX_STREAMS

    @property
    def takes_rules(self) -> bool:
        """Whether requests may have rules; sessions refuse such requests where they may not."""
        return False

    @property
    def counters(self) -> Mapping[str, int]:
        """What the engine counts of itself, by name; may be read from other threads.

        `num_waiting` and `num_running` tell of requests now, all others of what has been so far.
        """
        return {}

    @abstractmethod
    def submit(self, request: SpanRequest) -> int:
        """Take a request; return the index by which its steps are known.

        Raises:
            EngineError: the engine cannot serve the request.
        """

    @abstractmethod
    def step(self) -> list[Step]:
        """Advance every running request, admit waiting ones, and return the new ids."""

    @abstractmethod
    def cancel(self, request_index: int) -> None:
        """Forget a request; no step of it follows. A finished one is let be."""

    def close(self) -> None:
        """Give back what the engine holds; nothing may be asked of it any more.

        May be called again. An engine that holds nothing but memory need not do anything.
        """
        return

    def generate(self, requests: Sequence[SpanRequest]) -> Iterator[Step]:
        """Run requests to their ends and yield their steps as they come.

        Closing the iterator cancels what is unfinished.

        Raises:
            EngineError: the engine is busy with requests whose steps would be lost.
        """
        if self.num_unfinished:
            raise EngineError(
                f"the engine has {self.num_unfinished} unfinished requests of someone else; "
                "finish or cancel them, or use submit and step"
            )
        places: dict[int, int] = {}
        try:
            for place, request in enumerate(requests):
                places[self.submit(request)] = place
            while places:
                for step in self.step():
                    if step.error is not None:
                        raise step.error
                    place = places[step.request_index]
                    if step.is_finished:
                        del places[step.request_index]
                    yield replace(step, request_index=place)
        finally:
            for index in places:
                self.cancel(index)
