"""Against servers that answer as they were told: other people's, faulty ones, hostile ones."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import threading
from collections.abc import Iterator
from contextlib import aclosing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from chat_objects import drawn, png
from scripted_server import (
    KEY,
    PICTURE,
    SETTINGS,
    STOP,
    Script,
    ask,
    chat,
    delta,
    failure,
    reply,
    said,
    stream,
)

from mmgen.errors import SettingsError
from mmgen.generate.engine import SamplingParams
from mmgen_chat.backend import (
    ChatRequest,
    DrawRequest,
    TextDelta,
    TurnFinished,
    TurnSettings,
    TurnsLeftOut,
)
from mmgen_chat.conversation import Picture, Turn, Words
from mmgen_chat.endpoint import EndpointBackend
from mmgen_chat.errors import (
    CannotDrawError,
    EndpointDownError,
    EndpointReplyError,
    NotAllowedError,
    NotSupportedError,
)


@pytest.fixture
def script() -> Iterator[Script]:
    script = Script()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.do_POST()

        def do_POST(self) -> None:
            length = int(self.headers.get("content-length", 0))
            body = json.loads(self.rfile.read(length) or b"{}")
            script.asked.append((self.path, {"headers": dict(self.headers), **body}))
            route = script.routes.get(self.path)
            if route is None:
                reply(self, 404, {"detail": "Not Found"})
            else:
                route(self, body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    script.address = f"http://127.0.0.1:{server.server_port}"
    yield script
    server.shutdown()
    thread.join()
    server.server_close()


def test_plain_words(script: Script) -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}
    script.chat(
        delta(role="assistant", content=""),
        delta(content="Hel"),
        delta(content="lo"),
        STOP,
        {"choices": [], "usage": usage},
    )
    settings = TurnSettings(seed=4, text_sampling=SamplingParams(temperature=0.5, top_k=3))
    turn, events = ask(script, ChatRequest(turns=said("hi"), settings=settings))
    assert [event.text for event in events if isinstance(event, TextDelta)] == ["Hel", "lo"]
    assert turn.text == "Hello" and turn.state == "complete"
    assert turn.usage is not None
    assert (turn.usage.prompt_ids, turn.usage.text_ids, turn.usage.context_ids) == (9, 2, 11)
    path, asked = script.asked[-1]
    assert path == "/v1/chat/completions"
    assert asked["headers"]["authorization"] == f"Bearer {KEY}"
    assert asked["messages"] == [{"role": "user", "content": "hi"}]
    assert asked["temperature"] == 0.5
    # What only mmgen's server knows is not sent to others.
    assert not {"top_k", "partial_images", "max_images", "guidance_scale"} & asked.keys()


def test_pictures_in_and_out_of_a_stranger(script: Script) -> None:
    script.chat(delta(content="Here: "), delta(images=[{"image_url": {"url": PICTURE}}]), STOP)
    sea = Picture(png=png(colour="blue"), size=(4, 6), source="sea.png")
    earlier = drawn()
    turns = (
        Turn(role="user", segments=(sea, Words("draw this"))),
        Turn(role="assistant", segments=(earlier,)),
        Turn(role="user", segments=(Words("another one"),)),
    )
    turn, _ = ask(script, chat(*turns))
    assert turn.text == "Here: "
    [picture] = turn.pictures
    assert picture.size == (4, 6) and picture.png is not None
    assert picture.drawing is not None and picture.drawing.is_complete
    assert picture.drawing.prompt == "another one"
    first, second, third = script.asked[-1][1]["messages"]
    assert [part["type"] for part in first["content"]] == ["image_url", "text"]
    assert second == {"role": "assistant", "content": "(a picture)"}
    assert [part["type"] for part in third["content"]] == ["image_url", "text"]


def test_a_whole_answer_keeps_the_order_that_it_tells(script: Script) -> None:
    parts = [
        {"type": "text", "text": "Here: "},
        {"type": "image_url", "image_url": {"url": PICTURE}},
        {"type": "text", "text": "Like it?"},
    ]
    images = [{"type": "image_url", "index": 0, "image_url": {"url": PICTURE}}]
    message = {"content": "Here: Like it?", "images": images, "content_parts": parts}
    whole = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    script.routes["/v1/chat/completions"] = lambda handler, body: reply(handler, 200, whole)
    turn, _ = ask(script, chat(Turn(role="user", segments=(Words("draw"),))))
    kinds = [item.text if isinstance(item, Words) else "picture" for item in turn.segments]
    assert kinds == ["Here: ", "picture", "Like it?"]
    del message["content_parts"]
    turn, _ = ask(script, chat(Turn(role="user", segments=(Words("draw"),))))
    kinds = [item.text if isinstance(item, Words) else "picture" for item in turn.segments]
    assert kinds == ["Here: Like it?", "picture"]


def test_drawings_of_a_stranger_with_an_image_route(script: Script) -> None:
    encoded = base64.b64encode(png()).decode()

    def images(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        partial = {"type": "image_generation.partial_image", "b64_json": encoded}
        done = {"type": "image_generation.completed", "b64_json": encoded}
        stream(handler, [f"event: x\ndata: {json.dumps(item)}\n\n" for item in (partial, done)])

    script.routes["/v1/images/generations"] = images
    turn, _ = ask(script, DrawRequest(prompt="a fox", settings=SETTINGS))
    assert turn.state == "complete" and len(turn.pictures) == 1
    assert "seed" not in script.asked[-1][1]

    script.routes["/v1/images/generations"] = lambda handler, body: reply(
        handler, 200, {"created": 1, "data": [{"b64_json": encoded}, {"b64_json": encoded}]}
    )
    turn, _ = ask(script, DrawRequest(prompt="a fox", settings=SETTINGS, number=2))
    assert turn.state == "complete" and len(turn.pictures) == 2

    script.routes["/v1/images/generations"] = lambda handler, body: reply(
        handler, 200, {"data": [{"url": "https://elsewhere.example/a.png"}]}
    )
    _, events = ask(script, DrawRequest(prompt="a fox", settings=SETTINGS))
    assert "addresses are not followed" in str(failure(events).error)


def test_a_model_that_only_talks_cannot_draw(script: Script) -> None:
    script.chat(delta(content="I cannot draw."), STOP)
    turn, events = ask(script, DrawRequest(prompt="a fox", settings=SETTINGS))
    assert script.asked[-1][1]["modalities"] == ["image", "text"]
    assert isinstance(failure(events).error, CannotDrawError)
    assert not failure(events).can_retry
    assert turn.text == "I cannot draw." and turn.state == "failed"


def test_an_answer_that_breaks_off_is_kept(script: Script) -> None:
    script.chat(delta(content="The sea is"), end="")
    turn, events = ask(script, chat(*said("hi")))
    assert isinstance(failure(events).error, EndpointDownError) and failure(events).can_retry
    assert turn.text == "The sea is" and turn.state == "failed"
    script.chat(delta(content="The"), {"error": {"message": "out of memory", "code": 500}})
    turn, events = ask(script, chat(*said("hi")))
    assert "out of memory" in str(failure(events).error) and turn.text == "The"


@pytest.mark.parametrize(
    ("status", "body", "kind", "message"),
    [
        (401, {"error": {"message": f"Incorrect key {KEY}"}}, NotAllowedError, "Incorrect key …"),
        (403, {"error": "forbidden"}, NotAllowedError, "refuses the API key"),
        (429, {"error": {"message": "slow down"}}, EndpointDownError, "too busy"),
        (503, b"<html>", EndpointDownError, "no reason given"),
        (500, {"error": {"message": "oops"}}, EndpointDownError, "oops"),
        (400, {"error": {"message": "bad \x1b[2J field"}}, EndpointReplyError, "bad ␛"),
        (404, {"error": {"message": "no model", "code": "model_not_found"}}, EndpointReplyError,
         "refuses the request: no model"),
        (301, b"", EndpointReplyError, "elsewhere"),
        (200, b"<html>hello</html>", EndpointReplyError, "not JSON"),
        (200, b"[1]", EndpointReplyError, "no event"),
    ],
)  # fmt: skip
def test_refusals(
    script: Script,
    status: int,
    body: Any,
    kind: type[Exception],
    message: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    script.routes["/v1/chat/completions"] = lambda handler, _: reply(handler, status, body)
    _, events = ask(script, chat(*said("hi")))
    error = failure(events).error
    assert isinstance(error, kind) and message in str(error)
    assert KEY not in str(error) and "\n" not in str(error)
    assert KEY not in caplog.text


def test_a_wrong_kind_of_stream(script: Script) -> None:
    def page(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        handler.send_response(200)
        handler.send_header("content-type", "text/html")
        handler.end_headers()
        handler.wfile.write(b"<html></html>")

    script.routes["/v1/chat/completions"] = page
    _, events = ask(script, chat(*said("hi")))
    assert "text/html where a stream was expected" in str(failure(events).error)


@pytest.mark.parametrize(
    "chunk",
    [
        {"choices": "none"},
        {"choices": [7]},
        {"choices": [{"delta": "words"}]},
        {"choices": [{"delta": {"images": [{"image_url": {"url": "data:image/png;base64,%%"}}]}}]},
        {"choices": [{"delta": {"images": [{"image_url": {"url": "data:,aGVsbG8="}}]}}]},
        {"choices": [{"delta": {"images": [{"image_url": 3}]}}]},
        {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens_details": "none"}},
    ],
)
def test_answers_of_no_known_shape(script: Script, chunk: dict[str, Any]) -> None:
    script.chat(delta(content="Well, "), chunk, STOP)
    turn, events = ask(script, chat(*said("hi")))
    assert not failure(events).can_retry and turn.text == "Well, "


@pytest.mark.parametrize("told", [{"sizes": [3]}, {"sizes": 3}, {"tokenizers": 5}])
def test_a_model_of_no_known_shape(script: Script, told: dict[str, Any]) -> None:
    script.routes["/v1/models"] = lambda handler, body: reply(
        handler, 200, {"data": [{"id": "parrot", "mmgen": {"tokenizer": "a"} | told}]}
    )
    _, events = ask(script, chat(*said("hi")))
    assert "no answer in OpenAI's shapes" in str(failure(events).error)


def test_a_limit_under_its_newer_name(script: Script) -> None:
    def picky(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        if "max_tokens" in body:
            error = {"message": "use 'max_completion_tokens'", "param": "max_tokens"}
            reply(handler, 400, {"error": error})
        else:
            stream(handler, [f"data: {json.dumps(STOP)}\n\n"])

    script.routes["/v1/chat/completions"] = picky
    settings = TurnSettings(seed=1, max_text_ids=20)
    turn, _ = ask(script, ChatRequest(turns=said("hi"), settings=settings))
    assert turn.state == "complete"
    assert script.asked[-1][1]["max_completion_tokens"] == 20


def test_a_dialogue_that_is_too_long(script: Script) -> None:
    def short(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        if len(body["messages"]) > 3:
            error = {"message": "too long", "code": "context_length_exceeded"}
            reply(handler, 400, {"error": error})
        else:
            stream(handler, [f"data: {json.dumps(STOP)}\n\n"])

    script.routes["/v1/chat/completions"] = short
    turns: list[Turn] = []
    for number in range(3):
        turns += said(f"question {number}")
        turns.append(Turn(role="assistant", segments=(Words("Yes."),)))
    turns += said("and now?")
    turn, events = ask(script, chat(*turns, may_leave_out=True))
    assert turn.state == "complete"
    told = [event for event in events if isinstance(event, TurnsLeftOut)]
    assert told[-1].turn_ids == tuple(item.id for item in turns[:4])
    assert isinstance(events[-1], TurnFinished)


def test_what_a_server_cannot_do(script: Script) -> None:
    settings = TurnSettings(seed=1, guidance_scale=2.0)
    for request in (
        DrawRequest(prompt="a fox", settings=settings),
        DrawRequest(prompt="a fox", settings=TurnSettings(seed=1, length=8)),
    ):
        _, events = ask(script, request)
        assert isinstance(failure(events).error, NotSupportedError)
    backend = EndpointBackend(script.address)
    for work in (backend.likelihood(drawn(), "a fox"), backend.render(drawn())):
        with pytest.raises(NotSupportedError):
            asyncio.run(work)


def test_which_model(script: Script) -> None:
    async def opened(model: str | None) -> str:
        async with EndpointBackend(script.address, model=model) as backend:
            return (await backend.open()).model

    assert asyncio.run(opened(None)) == "parrot"
    with pytest.raises(SettingsError, match="did you mean 'parrot'"):
        asyncio.run(opened("parot"))
    script.routes["/v1/models"] = lambda handler, body: reply(
        handler, 200, {"data": [{"id": "one"}, {"id": "two"}]}
    )
    with pytest.raises(SettingsError, match=r"2 models.*one, two"):
        asyncio.run(opened(None))
    assert asyncio.run(opened("two")) == "two"
    del script.routes["/v1/models"]
    with pytest.raises(SettingsError, match="name one with --model"):
        asyncio.run(opened(None))
    assert asyncio.run(opened("any")) == "any"


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("localhost:8000", "such as http"),
        ("ftp://localhost", "such as http"),
        ("http://me:secret@localhost", "must not carry"),
        ("http://localhost:port", "not an address"),
    ],
)
def test_addresses_that_are_none(address: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        EndpointBackend(address)
    with pytest.raises(SettingsError, match="HTTP header"):
        EndpointBackend("http://localhost", api_key="schlüssel")


def test_stopping_ends_the_connection(script: Script) -> None:
    def endless(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        try:
            stream(handler, [f"data: {json.dumps(delta(content='la '))}\n\n"] * 1_000_000)
        except OSError:
            script.closed.set()

    script.routes["/v1/chat/completions"] = endless

    async def listen() -> None:
        async with EndpointBackend(script.address) as backend:
            async with aclosing(backend.events(chat(*said("sing")))) as events:
                count = 0
                async for _ in events:
                    count += 1
                    if count == 5:
                        break

    asyncio.run(asyncio.wait_for(listen(), 30))
    assert script.closed.wait(10), "the server goes on for nobody"
