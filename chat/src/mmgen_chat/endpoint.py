"""A model behind any server that speaks OpenAI's protocol, mmgen's own or another.

Dialogues go to the chat route and drawings to the image route. A server without an image route is
asked for the picture in a dialogue; one that then only talks cannot draw, and that is said.
"""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import Any

from mmgen.errors import MmgenError, SettingsError, TransientError
from mmgen.generate.provenance import parse_size
from mmgen_chat.backend import (
    AbstractBackend,
    BackendInfo,
    CaptionRequest,
    ChatRequest,
    DrawRequest,
    End,
    Event,
    ModelInfo,
    TokenizerInfo,
    TurnFailed,
    TurnRequest,
    TurnsLeftOut,
    TurnStarted,
)
from mmgen_chat.conversation import Turn, Words
from mmgen_chat.dialogue import exchanges, shown
from mmgen_chat.endpoint_answer import ServerAnswer
from mmgen_chat.endpoint_http import Endpoint, MissingRouteError, RefusedFieldError
from mmgen_chat.endpoint_wire import (
    caption_body,
    chat_body,
    drawing_body,
)
from mmgen_chat.errors import (
    CannotDrawError,
    EndpointDownError,
    EndpointReplyError,
    NoRoomError,
    NotSupportedError,
)

__all__ = ["EndpointBackend"]

_CHAT = "/chat/completions"
_IMAGES = "/images/generations"
_ENDS: dict[str, End] = {"stop": "end", "length": "length"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Served:
    """What a server turned out to have."""

    info: BackendInfo
    is_ours: bool
    """Whether the server is mmgen's."""


class EndpointBackend(AbstractBackend):
    """Answers with what a server says."""

    def __init__(
        self, address: str, *, model: str | None = None, api_key: str | None = None
    ) -> None:
        """Take note of where the server is; nothing is sent yet.

        Args:
            address: such as `http://localhost:8000/v1`.
            model: which of the server's models; it may be left out where there is only one.
            api_key: never shown or logged.

        Raises:
            SettingsError: the address or the key cannot be used.
        """
        self._endpoint = Endpoint(address, api_key=api_key)
        self._model = model
        self._served: _Served | None = None
        self._lock = asyncio.Lock()

    async def open(self) -> BackendInfo:
        return (await self._opened()).info

    async def events(self, request: TurnRequest) -> AsyncGenerator[Event]:
        try:
            served = await self._opened()
            async with aclosing(self._answer(served, request)) as events:
                async for event in events:
                    yield event
        except MmgenError as error:
            yield TurnFailed(error=error, can_retry=isinstance(error, TransientError))

    async def models(self) -> tuple[ModelInfo, ...]:
        return tuple(
            ModelInfo(name=str(item["id"]), detail=str(item.get("owned_by") or ""))
            for item in await self._listed()
        )

    async def close(self) -> None:
        await self._endpoint.close()

    async def _opened(self) -> _Served:
        async with self._lock:
            if self._served is None:
                self._served = await self._find()
            return self._served

    async def _find(self) -> _Served:
        address = self._endpoint.address
        try:
            listed = await self._listed()
        except MissingRouteError:
            listed = []
            if self._model is None:
                raise SettingsError(
                    f"{address} does not list its models; name one with --model"
                ) from None
        names = [str(item["id"]) for item in listed]
        name = self._model
        if name is None:
            if len(names) != 1:
                raise SettingsError(
                    f"{address} has {len(names)} models; name one with --model: "
                    f"{', '.join(names[:12])}{' …' if len(names) > 12 else ''}"
                )
            name = names[0]
        elif names and name not in names:
            near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names[:12])}"
            raise SettingsError(f"{address} has no model {name!r}; {hint}")
        entry = next((item for item in listed if item["id"] == name), {})
        with self._understanding():
            return _served(address, name, entry)

    async def _listed(self) -> list[dict[str, Any]]:
        found = await self._endpoint.get("/models")
        data = found.get("data") if isinstance(found, dict) else None
        if not isinstance(data, list):
            raise EndpointReplyError(
                f"{self._endpoint.address} gives no list of models; is the address right?"
            )
        return [item for item in data if isinstance(item, dict) and "id" in item]

    async def _answer(self, served: _Served, request: TurnRequest) -> AsyncGenerator[Event]:
        yield TurnStarted(model=served.info.model)
        async with aclosing(self._stream(served, request)) as events:
            async for event in events:
                yield event

    def _stream(self, served: _Served, request: TurnRequest) -> AsyncGenerator[Event]:
        match request:
            case DrawRequest():
                _check_drawing(served, request)
                return self._draw(served, request)
            case CaptionRequest():
                body = caption_body(request, served.info.model, is_ours=served.is_ours)
                answer = ServerAnswer(request.prompt or "", served.info.model)
                answer.seed = request.settings.seed
                return self._complete(body, answer)
            case ChatRequest():
                return self._chat(served, request)

    async def _chat(self, served: _Served, request: ChatRequest) -> AsyncGenerator[Event]:
        """Yield the answer to a dialogue, shortened as far as the server wants it."""
        turns = shown(request.turns)
        left_out: tuple[str, ...] = ()
        while True:
            body = chat_body(request, turns, served.info.model, is_ours=served.is_ours)
            answer = ServerAnswer(request.turns[-1].text.strip(), served.info.model)
            answer.seed = request.settings.seed
            if left_out:
                length = served.info.context_length
                yield TurnsLeftOut(turn_ids=left_out, context_length=length)
            try:
                async with aclosing(self._complete(body, answer)) as events:
                    async for event in events:
                        yield event
                break
            except NoRoomError as error:
                turns, left_out = _shorter(turns, left_out, error, request.may_leave_out)
        if request.must_draw and not answer.finished:
            raise CannotDrawError(
                f"{served.info.model} at {self._endpoint.address} gave no picture; choose a model "
                "that draws"
            )

    async def _draw(self, served: _Served, request: DrawRequest) -> AsyncGenerator[Event]:
        """Yield pictures of a prompt from the image route, or else out of a dialogue."""
        answer = ServerAnswer(request.prompt, served.info.model)
        body = drawing_body(request, served.info.model, is_ours=served.is_ours)
        if served.is_ours:
            answer.seed = request.settings.seed
        try:
            async with aclosing(self._endpoint.events(_IMAGES, body)) as items:
                async for item in items:
                    with self._understanding():
                        taken = await answer.take_image_event(item)
                    for event in taken:
                        yield event
        except MissingRouteError:
            async with aclosing(self._draw_in_dialogue(served, request)) as events:
                async for event in events:
                    yield event
            return
        if len(answer.finished) < request.number:
            raise EndpointDownError(
                f"{self._endpoint.address} ended the stream after {len(answer.finished)} of "
                f"{request.number} pictures; try again"
            )
        answer.end = "image"
        yield answer.last

    async def _draw_in_dialogue(
        self, served: _Served, request: DrawRequest
    ) -> AsyncGenerator[Event]:
        if request.number > 1:
            raise NotSupportedError(
                f"{self._endpoint.address} draws one picture at a time; ask for one"
            )
        turn = Turn(role="user", segments=(Words(f"Draw a picture: {request.prompt}"),))
        chat = ChatRequest(turns=(turn,), settings=request.settings, must_draw=True)
        async with aclosing(self._chat(served, chat)) as events:
            async for event in events:
                yield event

    async def _complete(self, body: dict[str, Any], answer: ServerAnswer) -> AsyncGenerator[Event]:
        """Yield what comes from the chat route, and the last event."""
        try:
            async with aclosing(self._chunks(body, answer)) as events:
                async for event in events:
                    yield event
        except RefusedFieldError as error:
            # Newer models of OpenAI's know the same limit by another name only.
            if error.param != "max_tokens" or "max_tokens" not in body:
                raise
            body = {**body, "max_completion_tokens": body["max_tokens"]}
            del body["max_tokens"]
            async with aclosing(self._chunks(body, answer)) as events:
                async for event in events:
                    yield event
        if answer.end is None:
            raise EndpointDownError(
                f"the connection to {self._endpoint.address} ended before the answer was "
                "complete; try again"
            )
        yield answer.last

    async def _chunks(self, body: dict[str, Any], answer: ServerAnswer) -> AsyncGenerator[Event]:
        async with aclosing(self._endpoint.events(_CHAT, body)) as chunks:
            async for chunk in chunks:
                with self._understanding():
                    events = await answer.take_chunk(chunk)
                for event in events:
                    yield event

    @contextmanager
    def _understanding(self) -> Iterator[None]:
        """Turn what the shape of foreign JSON can cause into one error."""
        try:
            yield
        except MmgenError:
            raise
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise EndpointReplyError(
                f"{self._endpoint.address} sent something that is no answer in OpenAI's shapes"
            ) from error


def _served(address: str, name: str, entry: dict[str, Any]) -> _Served:
    told = entry.get("mmgen")
    if not isinstance(told, dict):
        info = BackendInfo(engine=address, model=name, abilities=frozenset({"draw", "look"}))
        return _Served(info=info, is_ours=False)
    default = told.get("tokenizer")
    names = sorted(told.get("tokenizers", ()), key=lambda item: item != default)
    sizes = tuple(parse_size(size) for size in told.get("sizes", ()))
    info = BackendInfo(
        engine=address,
        model=name,
        abilities=frozenset({"draw", "look"}),
        context_length=told.get("context_length"),
        tokenizers=tuple(
            TokenizerInfo(name=item, sizes=sizes if item == default else ()) for item in names
        ),
        guidance_scale=told.get("guidance_scale"),
    )
    return _Served(info=info, is_ours=True)


def _check_drawing(served: _Served, request: DrawRequest) -> None:
    if request.extends is not None or request.settings.length is not None:
        raise NotSupportedError(
            "a server draws pictures of its own length; run the model in this process to choose"
        )
    if not served.is_ours and request.settings.guidance_scale is not None:
        raise NotSupportedError(
            f"{served.info.engine} is not known to take a guidance scale; leave it to the model"
        )


def _shorter(
    turns: Sequence[Turn], left_out: tuple[str, ...], error: NoRoomError, may_leave_out: bool
) -> tuple[tuple[Turn, ...], tuple[str, ...]]:
    """Return a dialogue without its oldest exchange, and all that was left out."""
    groups = exchanges(turns)
    if len(groups) < 2:
        raise error
    gone = (*left_out, *(turn.id for turn in groups[0]))
    if not may_leave_out:
        raise NoRoomError(
            f"{error}; leave out the {len(gone)} oldest turns, or begin a new dialogue",
            turn_ids=gone,
        ) from error
    return tuple(turn for group in groups[1:] for turn in group), gone
