"""What clients and engines do wrong must not hang, leak or spoil anybody else's answer."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import random
import resource
import socket
from collections import Counter
from typing import Any

import httpx
import pytest

from mmgen.generate.engine import Step
from mmgen.serve.settings import Limits
from tests.serve.conftest import RunningServer, StartServer, png_uri, wait_until

DRAWING = {"prompt": "a fox", "seed": 1}
DIALOGUE = {"messages": [{"role": "user", "content": "draw a fox"}], "seed": 1}


def raw_request(path: str, body: dict[str, Any]) -> bytes:
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(data)}\r\n\r\n".encode() + data


def connect(server: RunningServer) -> socket.socket:
    host, port = server.address.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=30)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/images/generations", DRAWING),
        ("/v1/images/generations", DRAWING | {"n": 3}),
        ("/v1/images/generations", DRAWING | {"stream": True, "partial_images": 4}),
        ("/v1/chat/completions", DIALOGUE | {"modalities": ["image"]}),
        ("/v1/chat/completions", DIALOGUE | {"modalities": ["image"], "stream": True, "n": 2}),
        (
            "/v1/responses",
            {
                "input": "draw a fox",
                "stream": True,
                "tools": [{"type": "image_generation"}],
                "tool_choice": "required",
            },
        ),
    ],
)
def test_a_client_that_leaves_frees_the_engine(
    start_server: StartServer, path: str, body: dict[str, Any]
) -> None:
    server = start_server(seconds=0.05)
    with connect(server) as client:
        client.sendall(raw_request(path, body))
        wait_until(lambda: server.desk.metrics.value("mmgen_turns_running") > 0)
    # A whole picture would take 64 steps of 50 ms.
    wait_until(lambda: server.is_idle, seconds=1)
    count = server.desk.metrics.value("mmgen_turns_total", end="cancelled")
    assert count == body.get("n", 1)
    server.engine.seconds = 0
    assert server.draw().status_code == 200


def test_a_client_that_leaves_while_it_waits_is_forgotten(start_server: StartServer) -> None:
    server = start_server(seconds=0.05)
    with connect(server) as first, connect(server) as second:
        # The first fills the engine's sixteen rows with eight guided pictures.
        first.sendall(raw_request("/v1/images/generations", DRAWING | {"n": 8}))
        wait_until(lambda: server.desk.metrics.value("mmgen_turns_running") == 8)
        second.sendall(raw_request("/v1/images/generations", DRAWING))
        wait_until(lambda: server.desk.metrics.value("mmgen_turns_waiting") == 1)
        second.close()
        wait_until(lambda: server.desk.metrics.value("mmgen_turns_waiting") == 0, seconds=1)
        wait_until(lambda: server.engine.num_unfinished == 8, seconds=1)
    wait_until(lambda: server.is_idle, seconds=1)


def test_leaving_early_changes_no_other_picture(start_server: StartServer) -> None:
    server = start_server()
    alone = server.draw(seed=7).json()["data"][0]["b64_json"]
    server.engine.seconds = 0.01
    with connect(server) as client:
        client.sendall(raw_request("/v1/images/generations", DRAWING | {"n": 4}))
        wait_until(lambda: server.desk.metrics.value("mmgen_turns_running") == 4)
        with httpx.stream(
            "POST",
            f"{server.address}/v1/images/generations",
            json={"prompt": "a fox", "seed": 7, "stream": True, "partial_images": 1},
        ) as stream:
            lines = stream.iter_lines()
            assert next(lines) == "event: image_generation.partial_image"
            client.close()
            completed = [line for line in lines if "image_generation.completed" in line]
    assert json.loads(completed[1].removeprefix("data: "))["b64_json"] == alone


def test_five_times_more_requests_than_there_is_room_for(start_server: StartServer) -> None:
    server = start_server(limits=Limits(max_turns=40))
    expected = {seed: server.draw(seed=seed).json()["data"][0]["b64_json"] for seed in range(5)}

    async def ask(client: httpx.AsyncClient, number: int) -> httpx.Response:
        return await client.post(
            "/v1/images/generations", json={"prompt": "a fox", "seed": number % 5}
        )

    async def ask_all() -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=200)
        async with httpx.AsyncClient(base_url=server.address, timeout=120, limits=limits) as client:
            return await asyncio.gather(*(ask(client, number) for number in range(200)))

    answers = asyncio.run(ask_all())
    counts = Counter(answer.status_code for answer in answers)
    assert set(counts) == {200, 429}
    assert counts[200] >= 40
    for number, answer in enumerate(answers):
        if answer.status_code == 200:
            assert answer.json()["data"][0]["b64_json"] == expected[number % 5]
        else:
            assert int(answer.headers["retry-after"]) >= 1
            assert answer.json()["error"]["code"] == "rate_limit_exceeded"
    wait_until(lambda: server.is_idle)
    refused = server.desk.metrics.value("mmgen_requests_refused_total", reason="load")
    assert refused == counts[429]


def test_a_client_that_is_told_to_come_again_does(start_server: StartServer) -> None:
    from openai import OpenAI

    server = start_server(seconds=0.01, limits=Limits(max_turns=1, max_n=1))
    with connect(server) as other:
        other.sendall(raw_request("/v1/images/generations", DRAWING))
        wait_until(lambda: server.desk.admission.num_turns == 1)
        with OpenAI(base_url=f"{server.address}/v1", api_key="-", max_retries=4) as client:
            assert client.images.generate(prompt="a fox", model="tiny").data
    assert server.desk.metrics.value("mmgen_requests_refused_total", reason="load") >= 1


@pytest.mark.slow
def test_memory_stays_flat(start_server: StartServer) -> None:
    server = start_server()

    def round_of_requests() -> int:
        for seed in range(10):
            server.draw(seed=seed, stream=True, partial_images=3)
            server.chat(
                {"type": "image_url", "image_url": {"url": png_uri(size=(256, 256))}},
                {"type": "text", "text": "what is this?"},
                max_tokens=4,
            )
        with connect(server) as client:
            client.sendall(raw_request("/v1/images/generations", DRAWING))
        wait_until(lambda: server.is_idle)
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    round_of_requests()
    before = round_of_requests()
    for _ in range(3):
        after = round_of_requests()
    assert after - before < 24 * 1024, "kibibytes"


def test_an_engine_that_dies_is_told_to_everybody(
    start_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start_server(seconds=0.02)
    url = f"{server.address}/v1/images/generations"
    with (
        httpx.stream("POST", url, json=DRAWING | {"stream": True, "partial_images": 1}) as stream,
        connect(server) as other,
    ):
        other.sendall(raw_request("/v1/images/generations", DRAWING))
        wait_until(lambda: server.engine.num_unfinished == 2)

        def explode() -> list[Step]:
            raise RuntimeError("the worker is gone")

        monkeypatch.setattr(server.engine, "step", explode)
        assert other.recv(2**16).startswith(b"HTTP/1.1 503")
        text = stream.read().decode()
    assert text.split("\n")[0] == "event: error"
    assert "the worker is gone" in text
    health = server.client.get("/health")
    assert health.status_code == 503
    assert health.json()["error"]["code"] == "engine_stopped"
    assert server.draw().status_code == 503
    wait_until(lambda: server.desk.metrics.value("mmgen_turns_running") == 0)
    assert server.desk.admission.num_turns == 0


def test_damaged_bodies_get_clear_errors(server: RunningServer) -> None:
    """Bodies that were right once, cut, mixed up and sprinkled with noise."""
    picture = {"type": "image_url", "image_url": {"url": png_uri()}}
    bodies = {
        "/v1/chat/completions": {
            "messages": [{"role": "user", "content": [picture, {"type": "text", "text": "?"}]}],
            "max_tokens": 2,
        },
        "/v1/images/generations": {"prompt": "a fox", "n": 1, "size": "32x32"},
        "/v1/responses": {"input": [{"role": "user", "content": "hello"}], "max_output_tokens": 2},
    }
    noise = random.Random(0)
    for path, body in bodies.items():
        whole = json.dumps(body).encode()
        for number in range(60):
            data = bytearray(whole)
            kind = number % 4
            if kind == 0:
                data = data[: noise.randrange(len(data))]
            elif kind == 1:
                for _ in range(3):
                    data[noise.randrange(len(data))] = noise.randrange(256)
            elif kind == 2:
                start = noise.randrange(len(data))
                data[start : start + 20] = noise.randbytes(20)
            else:
                start = noise.randrange(len(data))
                data[start:start] = noise.choice([b"\x00", b'"', b"[[", b"{}", b"\xff", b"null"])
            answer = server.client.post(
                path, content=bytes(data), headers={"content-type": "application/json"}
            )
            digest = hashlib.sha256(data).hexdigest()[:8]
            assert answer.status_code in (200, 400, 404), (path, digest, answer.text)
            if answer.status_code != 200:
                error = answer.json()["error"]
                assert error["message"] and "\n" not in error["message"]
                assert "Traceback" not in answer.text
    wait_until(lambda: server.is_idle)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not a picture",
        b"\x89PNG\r\n\x1a\n" + bytes(64),
        base64.b64decode(png_uri().partition(",")[2])[:90],
    ],
)
def test_damaged_pictures_are_refused(server: RunningServer, data: bytes) -> None:
    url = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    answer = server.chat(
        {"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "?"}
    )
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["param"] == "messages[0].content[0].image_url"
    assert error["code"] in ("invalid_image", "invalid_image_url")
    edit = server.client.post(
        "/v1/images/edits", data={"prompt": "a fox"}, files={"image": ("a.png", data)}
    )
    assert edit.status_code == 400
    assert edit.json()["error"]["param"] == "image"
