"""Turns under way: events of a service, made ready for the wire, counted, merged."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from mmgen.errors import MmgenError
from mmgen.generate.events import (
    Event,
    ImageFinished,
    ImageProgress,
    ImageStarted,
    TextDelta,
    TurnFailed,
    TurnFinished,
)
from mmgen.generate.provenance import Provenance
from mmgen.generate.requests import DrawRequest, TurnRequest
from mmgen.generate.service import Service
from mmgen.serve.admission import Admission
from mmgen.serve.metrics import Metrics
from mmgen.serve.previews import Frames, Preview, PreviewDecoder
from mmgen.serve.refusals import Refusal, refusal_of
from mmgen.serve.rendering import PictureFormat, applied, data_uri, size_text

__all__ = ["Drawing", "Runner", "Told"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """A finished picture as it is sent."""

    index: int
    """Which of the request's turns it belongs to."""
    encoded: str
    """The file in base64."""
    format: PictureFormat
    size: str
    """As `640x480`."""
    applied: dict[str, Any]
    """What it was drawn with."""

    @property
    def url(self) -> str:
        """The picture as a data URI."""
        return data_uri(self.encoded, self.format)


Told: TypeAlias = TextDelta | ImageStarted | Preview | Drawing | TurnFinished
"""What is told of a turn; `index` says of which turn of the request."""


class Runner:
    """Runs the turns of requests on a service."""

    def __init__(
        self,
        service: Service,
        *,
        model_name: str,
        admission: Admission,
        metrics: Metrics,
        previews: PreviewDecoder,
    ) -> None:
        self.service = service
        self._model_name = model_name
        self._admission = admission
        self._metrics = metrics
        self._previews = previews

    async def run(
        self,
        requests: Sequence[TurnRequest],
        format_: PictureFormat,
        *,
        partial_images: int = 0,
    ) -> AsyncGenerator[Told, None]:
        """Run turns together and yield what is to be told; closing cancels all of them.

        Raises:
            Refusal: one of them cannot be served.
        """
        turns = [
            self._turn(index, request, format_, partial_images)
            for index, request in enumerate(requests)
        ]
        async with aclosing(_merged(turns)) as merged:
            async for told in merged:
                yield told

    async def _turn(
        self, index: int, request: TurnRequest, format_: PictureFormat, partial_images: int
    ) -> AsyncGenerator[Told, None]:
        watch = _Stopwatch(self._metrics, self._admission)
        frames = Frames(index, partial_images, format_, self._previews) if partial_images else None
        is_wanted = _anything if frames else _anything_but_later_codes
        try:
            async with aclosing(self.service.async_events(request, is_wanted=is_wanted)) as events:
                async for event in events:
                    match event:
                        case ImageProgress():
                            watch.token()
                            preview = frames and frames.take(event)
                            if preview:
                                watch.preview()
                                yield preview
                        case ImageFinished():
                            if frames:
                                frames.finish()
                            self._metrics.image(event.num_ids)
                            yield await self._drawing(index, request, event, format_)
                        case TurnFailed():
                            raise event.error
                        case TurnFinished():
                            watch.end = event.end
                            self._metrics.used(event.usage)
                            yield replace(event, index=index)
                        case TextDelta():
                            watch.token()
                            yield replace(event, index=index)
                        case ImageStarted():
                            yield replace(event, index=index)
        except MmgenError as error:
            watch.end = "refused"
            if self.service.fault is not None:
                raise Refusal(str(self.service.fault), status=503, code="engine_stopped") from error
            raise refusal_of(error) from error
        finally:
            watch.stop()

    async def _drawing(
        self, index: int, request: TurnRequest, image: ImageFinished, format_: PictureFormat
    ) -> Drawing:
        def encode() -> str:
            metadata = None
            if isinstance(request, DrawRequest):
                checkpoint = self.service.session.checkpoint
                story = Provenance.of(image, request.prompt, self._model_name, checkpoint)
                metadata = story.metadata()
            return format_.encode(image.picture, metadata)

        return Drawing(
            index=index,
            encoded=await asyncio.to_thread(encode),
            format=format_,
            size=size_text(image.picture),
            applied=applied(image),
        )


def _anything(event: Event) -> bool:
    return True


def _anything_but_later_codes(event: Event) -> bool:
    """The first code of a picture tells that its turn runs; the others are for previews."""
    return not isinstance(event, ImageProgress) or event.num_done == 1


class _Stopwatch:
    """The times of one turn, counted in once and out once."""

    def __init__(self, metrics: Metrics, admission: Admission) -> None:
        self.end = "cancelled"
        """How the turn ended; as here unless somebody says otherwise."""
        self._metrics = metrics
        self._admission = admission
        self._started = time.perf_counter()
        self._is_running = False
        self._has_preview = False
        metrics.turn_waits()

    def token(self) -> None:
        if not self._is_running:
            self._is_running = True
            self._metrics.turn_starts(time.perf_counter() - self._started)

    def preview(self) -> None:
        if not self._has_preview:
            self._has_preview = True
            self._metrics.first_preview(time.perf_counter() - self._started)

    def stop(self) -> None:
        seconds = time.perf_counter() - self._started
        self._metrics.turn_ends(self.end, seconds, was_running=self._is_running)
        if self.end not in ("cancelled", "refused"):
            self._admission.note(seconds)


async def _merged(turns: Sequence[AsyncGenerator[Told, None]]) -> AsyncGenerator[Told, None]:
    """Yield what several iterators yield, as it comes; the first error ends all of them."""
    inbox: asyncio.Queue[Told | Exception | None] = asyncio.Queue(maxsize=2 * len(turns))

    async def drain(turn: AsyncGenerator[Told, None]) -> None:
        end = None
        try:
            async with aclosing(turn) as items:
                async for item in items:
                    await inbox.put(item)
        except Exception as error:  # raised again where the items are read
            end = error
        await inbox.put(end)

    tasks = [asyncio.create_task(drain(turn)) for turn in turns]
    try:
        num_left = len(tasks)
        while num_left:
            item = await inbox.get()
            if isinstance(item, Exception):
                raise item
            if item is None:
                num_left -= 1
            else:
                yield item
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
