"""Keys, sizes, times and places, before anything of a request is read."""

from __future__ import annotations

import socket
import time

import httpx
import pytest

from mmgen.errors import SettingsError
from mmgen.serve.admission import Admission
from mmgen.serve.refusals import Refusal, error_body
from mmgen.serve.settings import Limits, ServerConfig
from tests.serve.conftest import StartServer, wait_until


def test_only_who_has_the_key_gets_in(start_server: StartServer) -> None:
    server = start_server(api_key="open sesame")
    url = f"{server.address}/v1/models"

    def status(*values: str) -> int:
        headers = [("authorization", value) for value in values]
        return httpx.get(url, headers=headers).status_code

    assert status("Bearer open sesame") == 200
    assert status("bearer open sesame") == 200
    wrong = ["Bearer open", "Bearer open sesame2", "Basic open sesame", "open sesame", "", "Bearer"]
    assert {status(value) for value in wrong} | {status()} == {401}
    answer = httpx.get(url)
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json()["error"]["code"] == "invalid_api_key"
    assert "sesame" not in answer.text
    assert httpx.get(f"{server.address}/health").status_code == 200
    assert server.desk.metrics.value("mmgen_requests_refused_total", reason="key") == 8


def test_a_stranger_is_refused_before_the_body_is_read(start_server: StartServer) -> None:
    server = start_server(api_key="open sesame")
    host, port = server.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as client:
        client.sendall(
            b"POST /v1/images/generations HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n"
        )
        assert client.recv(2**16).startswith(b"HTTP/1.1 401")


def test_a_body_that_is_too_large_is_refused(start_server: StartServer) -> None:
    server = start_server(limits=Limits(max_body_bytes=1000))

    def chunks() -> list[bytes]:
        return [b'{"prompt": "', b"x" * 600, b"x" * 600, b'"}']

    announced = server.client.post("/v1/images/generations", content=b"".join(chunks()))
    unannounced = server.client.post(
        "/v1/images/generations",
        content=iter(chunks()),
        headers={"content-type": "application/json"},
    )
    form = server.client.post(
        "/v1/images/edits", data={"prompt": "x"}, files={"image": ("a.png", bytes(2000))}
    )
    for answer in (announced, unannounced, form):
        assert answer.status_code == 413
        assert answer.json()["error"]["code"] == "request_too_large"
    wait_until(lambda: server.is_idle)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("images/generations", "application/json"),
        ("images/edits", "multipart/form-data; boundary=x"),
    ],
)
def test_a_body_that_does_not_come_is_not_waited_for(
    start_server: StartServer, path: str, kind: str
) -> None:
    server = start_server(limits=Limits(max_body_seconds=1))
    host, port = server.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as client:
        started = time.monotonic()
        head = f"POST /v1/{path} HTTP/1.1\r\nhost: x\r\ncontent-type: {kind}\r\n"
        client.sendall(f"{head}content-length: 100\r\n\r\n--x".encode())
        answer = client.recv(2**16)
        while b"\r\n\r\n{" not in answer:
            # The head may come before the body.
            more = client.recv(2**16)
            assert more, answer
            answer += more
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"request_timeout" in answer
    assert 0.9 < time.monotonic() - started < 5
    wait_until(lambda: server.is_idle)


def test_a_request_takes_as_many_places_as_it_has_turns(start_server: StartServer) -> None:
    server = start_server(limits=Limits(max_turns=4, max_n=4))
    assert server.draw(n=4).status_code == 200
    # A client has all of an answer a moment before its places are given back.
    wait_until(lambda: server.desk.admission.num_turns == 0)
    with server.desk.admission.enter():
        answer = server.draw(n=4)
        assert answer.status_code == 429
        assert "1 of 4" not in answer.json()["error"]["message"]
        assert "2 of 4 answers and pictures" in answer.json()["error"]["message"]
        assert server.draw(n=3).status_code == 200
    assert server.client.get("/v1/models").status_code == 200
    wait_until(lambda: server.is_idle)


def test_places_come_back_and_waits_are_learnt() -> None:
    admission = Admission(max_turns=3)
    with admission.enter() as place:
        place.grow(2)
        with pytest.raises(Refusal) as refused:
            admission.enter()
        assert refused.value.headers == {"retry-after": "1"}
        for _ in range(60):
            admission.note(7.5)
        with pytest.raises(Refusal) as refused:
            admission.enter()
        assert refused.value.headers == {"retry-after": "8"}
    assert admission.num_turns == 0


def test_a_refusal_is_one_line() -> None:
    body = error_body(Refusal("two\nlines", status=503))
    assert body == {
        "error": {"message": "two lines", "type": "server_error", "param": None, "code": None}
    }


def test_settings_that_cannot_be_are_refused() -> None:
    for name in ("max_body_bytes", "max_turns", "max_fetch_seconds"):
        with pytest.raises(SettingsError, match=f"{name} must be 1 or more"):
            Limits(**{name: 0})
    assert Limits(max_pictures=0).max_pictures == 0
    with pytest.raises(SettingsError, match="needs a name"):
        ServerConfig(model_name="")
    with pytest.raises(SettingsError, match="no HTTP header can carry"):
        ServerConfig(model_name="a", api_key="schlüssel")
