"""Fetching pictures: from a real server on this machine, and never from where it must not be."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from mmgen.serve.fetching import Fetcher, is_public_address, resolve
from mmgen.serve.refusals import Refusal
from mmgen.serve.settings import Limits
from tests.serve.conftest import StartServer, png

HOST = "pictures.example.org"


class Pictures(BaseHTTPRequestHandler):
    """Gives a picture, and everything that a hostile server would give."""

    asked: list[tuple[str, str | None]]

    def do_GET(self) -> None:
        self.asked.append((self.path, self.headers["host"]))
        match self.path.strip("/").split("/"):
            case ["picture.png"]:
                self.answer(200, png())
            case ["to", *rest]:
                self.answer(302, b"", location="/".join(rest).replace("~", "/"))
            case ["round"]:
                self.answer(302, b"", location="/round")
            case ["large"]:
                self.answer(200, bytes(200_000))
            case ["endless"]:
                self.send_response(200)
                self.end_headers()
                for _ in range(2000):
                    self.wfile.write(bytes(1000))
            case ["slow"]:
                self.send_response(200)
                self.end_headers()
                for _ in range(60):
                    self.wfile.write(b"x")
                    self.wfile.flush()
                    time.sleep(0.1)
            case ["squeezed"]:
                self.answer(200, b"x", **{"content-encoding": "gzip"})
            case _:
                self.answer(404, b"")

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def handle(self) -> None:
        try:
            super().handle()
        except OSError:
            pass  # the client had enough

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        pass


@pytest.fixture
def site() -> Iterator[int]:
    """The port of a server of pictures."""
    Pictures.asked = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Pictures) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


async def local(host: str, port: int) -> list[str]:
    """Look every name up as this machine."""
    return ["127.0.0.1"]


def fetcher(port: int, **limits: float) -> Fetcher:
    """Return a fetcher for which this machine counts as public."""
    return Fetcher(
        frozenset({HOST, "other.example.org"}),
        Limits(**{"max_fetch_bytes": 100_000, **limits}),  # type: ignore[arg-type]
        resolver=local,
        is_allowed=lambda address: address == "127.0.0.1",
        ports=frozenset({port}),
    )


def fetch(fetcher: Fetcher, url: str) -> bytes:
    return asyncio.run(fetcher.fetch(url, "url"))


def refusal(fetcher: Fetcher, url: str) -> str:
    with pytest.raises(Refusal) as refused:
        fetch(fetcher, url)
    assert (refused.value.status, refused.value.param) == (400, "url")
    return str(refused.value)


def test_a_picture_comes(site: int) -> None:
    assert fetch(fetcher(site), f"http://{HOST}:{site}/picture.png") == png()
    assert Pictures.asked == [("/picture.png", f"{HOST}:{site}")]


def test_redirects_are_followed_within_the_rules(site: int) -> None:
    found = fetch(fetcher(site), f"http://{HOST}:{site}/to/~picture.png")
    assert found == png()
    other = f"http:~~other.example.org:{site}~picture.png"
    assert fetch(fetcher(site), f"http://{HOST}:{site}/to/{other}") == png()
    assert Pictures.asked[-1] == ("/picture.png", f"other.example.org:{site}")


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("http:~~127.0.0.1:{port}~picture.png", "not one that this server fetches from"),
        ("http:~~evil.example.org:{port}~picture.png", "not one that this server fetches from"),
        ("file:~~~etc~passwd", "the scheme 'file' is not http or https"),
        ("ftp:~~pictures.example.org~a.png", "the scheme 'ftp'"),
        ("http:~~pictures.example.org:22~", "the port 22 is not allowed"),
    ],
)
def test_redirects_cannot_leave_the_rules(site: int, target: str, said: str) -> None:
    url = f"http://{HOST}:{site}/to/{target.format(port=site)}"
    assert said in refusal(fetcher(site), url)
    assert len(Pictures.asked) == 1


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("round", "redirects more than 3 times"),
        ("large", "more than 100,000 bytes"),
        ("endless", "more than 100,000 bytes"),
        ("squeezed", "compressed"),
        ("nothing", "HTTP 404"),
    ],
)
def test_what_is_not_a_plain_small_answer_is_refused(site: int, path: str, said: str) -> None:
    assert said in refusal(fetcher(site), f"http://{HOST}:{site}/{path}")


def test_a_slow_answer_is_not_waited_for(site: int) -> None:
    started = time.monotonic()
    assert "within 1 s" in refusal(fetcher(site, max_fetch_seconds=1), f"http://{HOST}:{site}/slow")
    assert time.monotonic() - started < 3


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://evil.example.org/a.png", "not one that this server fetches from"),
        (f"http://{HOST}.evil.org/a.png", "not one that this server fetches from"),
        (f"http://{HOST}@evil.org/a.png", "user name"),
        (f"http://user:word@{HOST}/a.png", "user name"),
        (f"http://{HOST}:99999/a.png", "malformed"),
        ("http://[::1/a.png", "malformed"),
        ("http:///a.png", "not one that this server fetches from"),
        ("http://127.0.0.1/a.png", "not one that this server fetches from"),
    ],
)
def test_addresses_outside_the_rules_are_refused(url: str, said: str) -> None:
    assert said in refusal(Fetcher(frozenset({HOST}), Limits()), url)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "239.255.255.250",
        "255.255.255.255",
        "198.18.0.1",
        "192.0.2.1",
        "::1",
        "::",
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1",
        "fd00:ec2::254",
        "fec0::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "::127.0.0.1",
        "64:ff9b::a00:1",
        "64:ff9b:1::1",
        "2002:7f00:1::",
        "2001:0:7f00:1::",
        "2001:db8::1",
        "not an address",
    ],
)
def test_a_name_that_leads_inside_is_refused(site: int, address: str) -> None:
    assert not is_public_address(address)

    async def inside(host: str, port: int) -> list[str]:
        return [address]

    guarded = Fetcher(frozenset({HOST}), Limits(), resolver=inside, ports=frozenset({80, site}))
    assert "has no public address" in refusal(guarded, f"http://{HOST}:{site}/picture.png")
    assert Pictures.asked == []


def test_one_address_inside_spoils_a_name(site: int) -> None:
    async def both(host: str, port: int) -> list[str]:
        return ["93.184.215.14", "127.0.0.1"]

    guarded = Fetcher(frozenset({HOST}), Limits(), resolver=both, ports=frozenset({site}))
    assert "has no public address" in refusal(guarded, f"http://{HOST}:{site}/picture.png")


@pytest.mark.parametrize("address", ["93.184.215.14", "1.1.1.1", "2606:4700:4700::1111"])
def test_the_open_internet_is_public(address: str) -> None:
    assert is_public_address(address)


def test_a_name_that_changes_its_mind_is_looked_up_once(site: int) -> None:
    """The connection goes to the address that was checked, whatever the name says by then."""
    answers = iter([["127.0.0.1"], ["169.254.169.254"]])

    async def rebinding(host: str, port: int) -> list[str]:
        return next(answers)

    guarded = Fetcher(
        frozenset({HOST}),
        Limits(),
        resolver=rebinding,
        is_allowed=lambda address: address == "127.0.0.1",
        ports=frozenset({site}),
    )
    assert fetch(guarded, f"http://{HOST}:{site}/picture.png") == png()
    # After a redirect it is looked up anew, and checked anew.
    assert "has no public address" in refusal(guarded, f"http://{HOST}:{site}/picture.png")
    assert len(Pictures.asked) == 1


def test_the_other_end_of_the_connection_is_looked_at(site: int) -> None:
    answers = iter([True, False])
    guarded = Fetcher(
        frozenset({HOST}),
        Limits(),
        resolver=local,
        is_allowed=lambda address: next(answers),
        ports=frozenset({site}),
    )
    message = refusal(guarded, f"http://{HOST}:{site}/picture.png")
    assert "does not lead to a public address" in message


def test_proxies_of_the_environment_are_not_used(
    site: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    assert fetch(fetcher(site), f"http://{HOST}:{site}/picture.png") == png()


def test_the_systems_resolver_is_asked() -> None:
    assert set(asyncio.run(resolve("localhost", 80))) & {"127.0.0.1", "::1"}


def test_a_server_fetches_what_it_may(site: int, start_server: StartServer) -> None:
    server = start_server(fetcher=fetcher(site))
    picture = {"type": "image_url", "image_url": {"url": f"http://{HOST}:{site}/picture.png"}}
    question = {"type": "text", "text": "what is this?"}
    answer = server.chat(picture, question, max_tokens=2)
    assert answer.status_code == 200, answer.text
    assert answer.json()["usage"]["prompt_tokens_details"]["image_tokens"] == 64
    picture["image_url"] = {"url": f"http://{HOST}:{site}/nothing"}
    refused = server.chat(picture, question)
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "messages[0].content[0].image_url"


def test_a_configured_server_fetches_nothing_inside(site: int, start_server: StartServer) -> None:
    server = start_server(allowed_url_hosts=frozenset({"localhost"}))
    picture = {"type": "image_url", "image_url": {"url": "http://localhost/picture.png"}}
    answer = server.chat(picture, {"type": "text", "text": "?"})
    assert answer.status_code == 400
    assert "has no public address" in answer.json()["error"]["message"]
