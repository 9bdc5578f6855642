"""A server that answers as it was told, and questions to it."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any

from chat_objects import png

from mmgen_chat.answer import Answer
from mmgen_chat.backend import (
    ChatRequest,
    TurnFailed,
    TurnRequest,
    TurnSettings,
)
from mmgen_chat.conversation import Turn, Words
from mmgen_chat.endpoint import EndpointBackend

KEY = "sk-hush-hush"

SETTINGS = TurnSettings(seed=4)

PICTURE = f"data:image/png;base64,{base64.b64encode(png()).decode()}"


class Script:
    """A server whose answers a test writes, and what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.routes: dict[str, Callable[[BaseHTTPRequestHandler, dict[str, Any]], None]] = {}
        self.routes["/v1/models"] = lambda handler, body: reply(
            handler, 200, {"data": [{"id": "parrot", "owned_by": "nobody"}]}
        )
        self.closed = threading.Event()
        self.address = ""

    def chat(self, *chunks: Any, end: str = "data: [DONE]\n\n", status: int = 200) -> None:
        def answer(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
            if status != 200:
                reply(handler, status, chunks[0])
            else:
                stream(handler, [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks] + [end])

        self.routes["/v1/chat/completions"] = answer


def reply(handler: BaseHTTPRequestHandler, status: int, body: Any) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    handler.send_response(status)
    handler.send_header("content-type", "application/json")
    handler.send_header("content-length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data)


def stream(handler: BaseHTTPRequestHandler, pieces: list[str]) -> None:
    handler.send_response(200)
    handler.send_header("content-type", "text/event-stream; charset=utf-8")
    handler.end_headers()
    for piece in pieces:
        handler.wfile.write(piece.encode())
        handler.wfile.flush()


def delta(**values: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": values, "finish_reason": None}]}


STOP = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}


def ask(script: Script, request: TurnRequest, *, key: str | None = KEY) -> tuple[Turn, list[Any]]:
    async def collect() -> tuple[Turn, list[Any]]:
        answer = Answer(Turn(role="assistant"))
        events = []
        async with EndpointBackend(script.address, api_key=key) as backend:
            async for event in backend.events(request):
                answer.take(event)
                events.append(event)
        return answer.turn, events

    return asyncio.run(asyncio.wait_for(collect(), 30))


def said(*words: str) -> tuple[Turn, ...]:
    return tuple(Turn(role="user", segments=(Words(item),)) for item in words)


def chat(*turns: Turn, **rest: Any) -> ChatRequest:
    return ChatRequest(turns=turns, settings=SETTINGS, **rest)


def failure(events: list[Any]) -> TurnFailed:
    assert isinstance(events[-1], TurnFailed), events[-1]
    return events[-1]
