"""What all routes work with: one service, its limits and counters, and the ways to answer."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import Response

from mmgen.checkpoint import GenerationDefaults
from mmgen.generate.requests import TurnRequest
from mmgen.generate.service import Service
from mmgen.serve.admission import Admission, Place
from mmgen.serve.fetching import Fetcher
from mmgen.serve.gate import PLACE
from mmgen.serve.incoming import PictureReader
from mmgen.serve.metrics import Metrics
from mmgen.serve.previews import PreviewDecoder
from mmgen.serve.refusals import Refusal, error_body
from mmgen.serve.rendering import PictureFormat
from mmgen.serve.replies import EventStream, json_response, to_json, unless_gone
from mmgen.serve.running import Runner, Told
from mmgen.serve.settings import ServerConfig

__all__ = ["Answer", "Desk", "Events"]


class Answer(Protocol):
    """A whole answer in the shape of some route."""

    def take(self, told: Told) -> None:
        """Take what is told of a turn."""

    def body(self) -> dict[str, Any]:
        """Return the answer when everything was told."""


class Events(Protocol):
    """A streamed answer in the shape of some route."""

    def opening(self) -> list[dict[str, Any]]:
        """Return the events before anything is told."""

    def take(self, told: Told) -> list[dict[str, Any]]:
        """Return the events for what is told of a turn."""

    def closing(self) -> list[dict[str, Any]]:
        """Return the events after everything was told."""


class Desk:
    """Takes requests to a service and its events to clients."""

    def __init__(
        self,
        service: Service,
        config: ServerConfig,
        fetcher: Fetcher,
        report: Callable[[int], None] = lambda turns: None,
    ) -> None:
        """Open for business.

        Args:
            report: told how many turns are in the works, whenever that changes.
        """
        self.service = service
        self.config = config
        self.metrics = Metrics(service.session.engine)
        self.admission = Admission(config.limits.max_turns, report)
        self.previews = PreviewDecoder(self.metrics)
        self.reader = PictureReader(config.limits, fetcher)
        self._runner = Runner(
            service,
            model_name=config.model_name,
            admission=self.admission,
            metrics=self.metrics,
            previews=self.previews,
        )

    @property
    def defaults(self) -> GenerationDefaults:
        """How the checkpoint is used unless a request says otherwise."""
        return self.service.session.checkpoint.generation

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Sizes `(height, width)` of the pictures that the model draws."""
        return list(self.service.session.codec.sizes(self.defaults.tokenizer))

    def new_head(self, prefix: str) -> dict[str, Any]:
        """Return what identifies an answer."""
        return {
            "id": f"{prefix}{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": self.config.model_name,
        }

    async def whole(
        self,
        request: Request,
        turns: Sequence[TurnRequest],
        format_: PictureFormat,
        answer: Answer,
    ) -> Response:
        """Run turns to their ends and answer; the client's leaving cancels them."""
        self._make_room(request, turns)

        async def work() -> Response:
            async with aclosing(self._runner.run(turns, format_)) as tellings:
                async for told in tellings:
                    answer.take(told)
            return json_response(answer.body())

        return await unless_gone(request.receive, work())

    async def stream(
        self,
        request: Request,
        turns: Sequence[TurnRequest],
        format_: PictureFormat,
        events: Events,
        *,
        partial_images: int,
        last_line: str = "",
    ) -> Response:
        """Answer with events as turns go on; the client's leaving cancels them.

        What can be refused is refused before the stream begins, with a status of its own.

        Args:
            last_line: ends the stream, where clients expect something.
        """
        self._make_room(request, turns)
        tellings = self._runner.run(turns, format_, partial_images=partial_images)
        first = await unless_gone(request.receive, anext(tellings))
        return EventStream(_lines(first, tellings, events, last_line))

    def _make_room(self, request: Request, turns: Sequence[TurnRequest]) -> None:
        place: Place = request.scope[PLACE]
        try:
            place.grow(len(turns) - 1)
        except Refusal:
            self.metrics.refused("load")
            raise


async def _lines(
    first: Told, tellings: AsyncGenerator[Told, None], events: Events, last_line: str
) -> AsyncGenerator[str, None]:
    """Yield the text of a stream of events."""
    async with aclosing(tellings):
        try:
            yield "".join(map(_event, [*events.opening(), *events.take(first)]))
            async for told in tellings:
                for event in events.take(told):
                    yield _event(event)
            yield "".join(map(_event, events.closing())) + last_line
        except Refusal as refusal:
            # The status has been sent; clients take this event for the error that it is.
            yield f"event: error\ndata: {to_json(error_body(refusal))}\n\n"


def _event(data: dict[str, Any]) -> str:
    """Return one event; those that have a type are named by it."""
    name = f"event: {data['type']}\n" if "type" in data else ""
    return f"{name}data: {to_json(data)}\n\n"
