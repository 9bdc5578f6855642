"""One turn under way: which span comes next, and what its ids mean.

A turn is a row of spans. Text runs until the model ends the turn or opens an image; the shape of
an image is chosen id by id where the vocabulary leaves a choice; its codes are then counted, and
the closing marker is not drawn but appended. Each span is one engine request of its own.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from mmgen.condition import null_condition, null_words
from mmgen.document import DocumentCodec, Image, Segment, Text, Turn
from mmgen.errors import SettingsError
from mmgen.generate.engine import (
    MAX_SEED,
    AbstractRule,
    Constraint,
    SamplingParams,
    SpanRequest,
    Step,
)
from mmgen.generate.events import (
    Event,
    ImageFinished,
    ImageProgress,
    ImageStarted,
    TextDelta,
    Timings,
    TurnEnd,
    TurnFinished,
    Usage,
)
from mmgen.grammar import GrammarState
from mmgen.visual_tokenizer import Codes, Layout
from mmgen.vocabulary import Vocabulary

__all__ = ["TurnInProgress", "TurnSettings", "check_room"]


def check_room(num_prompt_ids: int, num_codes: int, context_length: int) -> None:
    """Refuse a prompt that leaves too little of the context.

    Args:
        num_codes: codes of a picture that must follow; 0 where an answer in words follows.
    """
    total = num_prompt_ids + max(num_codes, 1)
    if total <= context_length:
        return
    if num_codes:
        raise SettingsError(
            f"the prompt takes {num_prompt_ids} tokens and the picture {num_codes}, {total} of "
            f"the {context_length} that fit; shorten the prompt"
        )
    raise SettingsError(
        f"the prompt takes {num_prompt_ids} tokens of the {context_length} that fit, which leaves "
        "no room for an answer; shorten it"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnSettings:
    """How a turn is generated, nothing left open."""

    seed: int
    guidance_scale: float
    """Applied to images."""
    image_guidance_scale: float | None = None
    """How strongly images follow the pictures that users show; None for as their words."""
    text_sampling: SamplingParams
    image_sampling: SamplingParams
    max_text_ids: int
    """Text ids after which the turn is over; 0 ends it after its images."""
    max_images: int
    """Images that the turn may have."""
    rule: AbstractRule | None = None
    """A form that text must have; it allows no image."""
    negative_prompt: str | None = None
    """What guidance leads away from, in words."""
    negative_ids: tuple[int, ...] | None = None
    """The turn's prompt with other words, which guidance leads away from; None for none."""


@dataclass(slots=True, eq=False)
class _OpenImage:
    """The image that is being drawn."""

    tokenizer: str
    layout: Layout
    num_codes: int
    num_given: int
    """Codes that the prompt brought."""
    code_ids: list[int]
    seed: int
    started: float


class TurnInProgress:
    """Builds the engine requests of a turn and turns their steps into events."""

    def __init__(
        self,
        index: int,
        prompt_ids: list[int],
        codec: DocumentCodec,
        settings: TurnSettings,
        context_length: int,
    ) -> None:
        """Take up a request; `span` is what to ask of the engine, now and after each span.

        Args:
            index: carried by every event.
            prompt_ids: what the turn continues; an opened image at its end is drawn first.

        Raises:
            SettingsError: the prompt and the span do not fit the context.
        """
        check_room(len(prompt_ids), 0, context_length)
        self.index = index
        self.end: TurnEnd | None = None
        self._codec = codec
        self._vocabulary = codec.vocabulary
        self._settings = settings
        self._context_length = context_length
        self._caption = codec.caption_after(prompt_ids)
        self._ids = list(prompt_ids)
        self._state: GrammarState = codec.grammar.state_after(prompt_ids)
        self._num_prompt_ids = len(prompt_ids)
        self._num_prompt_codes = _num_codes(prompt_ids, codec.vocabulary)
        self._num_spans = 0
        self._num_cached_ids: int | None = None
        self._num_text_ids = 0
        self._num_image_ids = 0
        self._segments: list[Segment] = []
        self._image: _OpenImage | None = None
        self._text = codec.text_tokenizer.decode_stream()
        self._started = time.perf_counter()
        self._first: float | None = None
        self.span = self._next_span()

    def _next_span(self) -> SpanRequest:
        """Return the engine request of the next span."""
        remaining = self._state.remaining
        if remaining is not None:
            return self._image_span(remaining - 1)
        if self._state.tokenizer is not None:
            return self._shape_span()
        return self._text_span()

    def opening(self) -> Iterator[Event]:
        """Yield what is to be told before the steps of the span just requested."""
        image = self._image
        if image is not None and len(image.code_ids) == image.num_given:
            yield ImageStarted(self.index, image.tokenizer, image.layout, image.num_codes)

    def take(self, step: Step) -> Iterator[Event]:
        """Take new ids of the current span and yield what they mean.

        The span is over when the step says so; the turn, when `end` is set.

        Raises:
            EngineError: the engine gave the span up.
        """
        if step.error is not None:
            raise step.error
        if self._first is None:
            self._first = time.perf_counter()
        for id_ in step.ids:
            yield from self._take_id(id_)
        if self._num_spans == 1 and step.num_cached_ids is not None:
            self._num_cached_ids = step.num_cached_ids
        if step.is_finished:
            yield from self._finish_span(step)

    def _take_id(self, id_: int) -> Iterator[Event]:
        self._ids.append(id_)
        image = self._image
        if image is not None:
            image.code_ids.append(id_)
            self._num_image_ids += 1
            yield ImageProgress(
                self.index,
                image.tokenizer,
                image.layout,
                len(image.code_ids),
                image.num_codes,
                image.code_ids,
                self._vocabulary,
                self._codec.visual_tokenizers[image.tokenizer],
                self._caption,
            )
            return
        self._state = self._state.advance(id_)
        if id_ < self._vocabulary.num_text_ids:
            self._num_text_ids += 1
            yield from self._say(self._text.push(id_))

    def _finish_span(self, step: Step) -> Iterator[Event]:
        if self._image is not None:
            yield self._finish_image(self._image, step)
            self._image = None
            self._advance(self._vocabulary.end_image_id)
            if len(self._images) == self._settings.max_images and not self._may_speak:
                self.end = "image"
        elif self._state.tokenizer is None:
            self.end = "end" if step.finish_reason == "stop" else "length"
        if self._state.tokenizer is not None or self.end is not None:
            yield from self._say(self._text.flush())
        if self.end is None and self._state.tokenizer is None and not self._may_speak:
            self.end = "length"
        if self.end is not None:
            yield self._finished()
        else:
            self.span = self._next_span()

    def _finish_image(self, image: _OpenImage, step: Step) -> ImageFinished:
        codes = Codes(self._vocabulary.codes(image.tokenizer, image.code_ids), image.layout)
        self._state = self._state.advance_all(image.code_ids[image.num_given :])
        self._segments.append(Image(codes=codes, tokenizer=image.tokenizer))
        # One at a time, so that a picture is the same to the bit whatever is drawn beside it.
        picture = self._codec.decode_image(codes, image.tokenizer, caption=self._caption)
        return ImageFinished(
            index=self.index,
            tokenizer=image.tokenizer,
            picture=picture,
            codes=codes,
            seed=image.seed,
            guidance_scale=step.guidance_scale,
            image_guidance_scale=step.partial_scale,
            sampling=self._settings.image_sampling,
            seconds=time.perf_counter() - image.started,
            num_ids=len(image.code_ids) - image.num_given,
            negative_prompt=self._settings.negative_prompt,
            num_restarts=step.num_restarts,
            caption=self._caption,
        )

    def _finished(self) -> TurnFinished:
        assert self.end is not None
        turn = Turn("assistant", tuple(self._segments))
        now = time.perf_counter()
        return TurnFinished(
            index=self.index,
            turn=turn,
            text="".join(item.text for item in turn.segments if isinstance(item, Text)),
            end=self.end,
            usage=Usage(
                prompt_ids=self._num_prompt_ids,
                prompt_image_ids=self._num_prompt_codes,
                text_ids=self._num_text_ids,
                image_ids=self._num_image_ids,
                cached_ids=self._num_cached_ids,
            ),
            timings=Timings((self._first or now) - self._started, now - self._started),
        )

    @property
    def _images(self) -> list[Image]:
        return [segment for segment in self._segments if isinstance(segment, Image)]

    @property
    def _num_left(self) -> int:
        """Ids that still fit the context."""
        return self._context_length - len(self._ids)

    @property
    def _may_speak(self) -> bool:
        """Whether text may follow."""
        return self._num_text_ids < self._settings.max_text_ids and self._num_left > 0

    def _say(self, text: str) -> Iterator[Event]:
        if text:
            self._segments.append(Text(text))
            yield TextDelta(self.index, text)

    def _advance(self, id_: int) -> None:
        self._ids.append(id_)
        self._state = self._state.advance(id_)

    def _text_span(self) -> SpanRequest:
        vocabulary = self._vocabulary
        stops = [vocabulary.end_id, *self._markers()]
        choices = (range(vocabulary.num_text_ids), *(range(id_, id_ + 1) for id_ in stops))
        return self._request(
            constraint=Constraint((choices,)),
            max_ids=min(self._settings.max_text_ids - self._num_text_ids, self._num_left),
            stop_ids=frozenset(stops),
            sampling=self._settings.text_sampling,
            rule=self._settings.rule,
        )

    def _markers(self) -> list[int]:
        """Return the markers of images that may begin: wanted, decodable and short enough."""
        if len(self._images) >= self._settings.max_images:
            return []
        return [
            ranges.marker_id
            for name, ranges in self._vocabulary.tokenizers.items()
            if name in self._codec.visual_tokenizers
            and max(ranges.num_image_ids(layout) for layout in ranges.layouts) < self._num_left
        ]

    def _shape_span(self) -> SpanRequest:
        return self._request(
            constraint=Constraint((self._state.allowed,)),
            max_ids=1,
            sampling=self._settings.text_sampling,
        )

    def _image_span(self, num_codes: int) -> SpanRequest:
        state = self._state.image
        assert state is not None, "an image whose codes are counted has a layout"
        ranges = self._codec.grammar.code_ranges(state.name, state.layout)
        check_room(len(self._ids), num_codes, self._context_length)
        request = self._request(
            constraint=Constraint(tuple((ids,) for ids in ranges)),
            max_ids=num_codes,
            sampling=self._settings.image_sampling,
        )
        num_in_all = state.layout.num_positions * len(ranges)
        num_given = num_in_all - num_codes
        self._image = _OpenImage(
            tokenizer=state.name,
            layout=state.layout,
            num_codes=num_in_all,
            num_given=num_given,
            code_ids=self._ids[len(self._ids) - num_given :],
            seed=request.seed,
            started=time.perf_counter(),
        )
        return self._guided(request)

    def _guided(self, request: SpanRequest) -> SpanRequest:
        """Return the request of an image with what guidance leads away from."""
        settings, ids, vocabulary = self._settings, self._ids, self._vocabulary
        image_scale = settings.image_guidance_scale
        if settings.guidance_scale == 1.0 and image_scale is None:
            return request
        other_words: tuple[int, ...] | None = None
        if settings.negative_ids is not None:
            other_words = (*settings.negative_ids, *ids[self._num_prompt_ids :])
        blank = tuple(null_condition(ids, vocabulary))
        if image_scale is None:
            return replace(
                request,
                unguided_ids=other_words or blank,
                guidance_scale=settings.guidance_scale,
            )
        return replace(
            request,
            unguided_ids=blank,
            guidance_scale=settings.guidance_scale,
            partial_ids=other_words or tuple(null_words(ids, vocabulary)),
            partial_scale=image_scale,
        )

    def _request(
        self,
        *,
        constraint: Constraint,
        max_ids: int,
        sampling: SamplingParams,
        stop_ids: frozenset[int] = frozenset(),
        rule: AbstractRule | None = None,
    ) -> SpanRequest:
        seed = _span_seed(self._settings.seed, self._num_spans)
        self._num_spans += 1
        return SpanRequest(
            prompt_ids=tuple(self._ids),
            constraint=constraint,
            max_ids=max_ids,
            seed=seed,
            sampling=sampling,
            stop_ids=stop_ids,
            rule=rule,
        )


def _num_codes(ids: list[int], vocabulary: Vocabulary) -> int:
    """Return how many ids are codes of pictures."""
    ranges = [codes for item in vocabulary.tokenizers.values() for codes in item.code_ids]
    return sum(any(id_ in codes for codes in ranges) for id_ in ids)


def _span_seed(seed: int, number: int) -> int:
    """Return the seed of a turn's span: the turn's own for the first, far from it for others."""
    if number == 0:
        return seed
    return (seed + number * 0x9E3779B97F4A7C15) & MAX_SEED
