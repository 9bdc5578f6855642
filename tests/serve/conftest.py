"""A server with a tiny model, on a socket of its own, for every test that needs one."""

from __future__ import annotations

import base64
import io
import random
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeAlias

import httpx
import pytest
import uvicorn
from PIL import Image

from mmgen.checkpoint import open_checkpoint
from mmgen.generate.engine import Step
from mmgen.generate.service import Service
from mmgen.generate.session import Session
from mmgen.generate.torch_engine import TorchEngine
from mmgen.serve.app import create_app
from mmgen.serve.desk import Desk
from mmgen.serve.fetching import Fetcher
from mmgen.serve.listening import address_of, bind
from mmgen.serve.settings import ServerConfig


@pytest.fixture(autouse=True)
def seeds_nobody_chose(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw the seeds of requests without one from a fixed row: a random model may say anything."""
    monkeypatch.setattr(secrets, "randbelow", random.Random(0).randrange)


class UnhurriedEngine(TorchEngine):
    """An engine whose steps take at least some time, so that tests can act between them."""

    seconds = 0.0

    def step(self) -> list[Step]:
        time.sleep(self.seconds)
        return super().step()


class RunningServer:
    """A server in a thread, as clients see it and as only a test can."""

    def __init__(
        self, session: Session, config: ServerConfig, fetcher: Fetcher | None = None
    ) -> None:
        self.session = session
        self.service = Service(session)
        self.app = create_app(self.service, config, fetcher=fetcher)
        self.desk: Desk = self.app.state.desk
        self._listener = bind("127.0.0.1", 0)
        self.address = address_of(self._listener)
        self._server = uvicorn.Server(
            uvicorn.Config(
                self.app, lifespan="off", ws="none", log_config=None, timeout_graceful_shutdown=5
            )
        )
        self._thread = threading.Thread(target=self._server.run, args=([self._listener],))
        self._thread.start()
        headers = {} if config.api_key is None else {"authorization": f"Bearer {config.api_key}"}
        self.client = httpx.Client(base_url=self.address, timeout=60, headers=headers)
        wait_until(lambda: self._server.started)

    def post(self, path: str, **body: Any) -> httpx.Response:
        return self.client.post(path, json=body)

    def chat(self, *content: Any, **fields: Any) -> httpx.Response:
        messages = [{"role": "user", "content": content[0] if len(content) == 1 else content}]
        return self.post("/v1/chat/completions", **{"messages": messages, **fields})

    def draw(self, prompt: str = "a fox", **fields: Any) -> httpx.Response:
        return self.post("/v1/images/generations", prompt=prompt, **fields)

    @property
    def engine(self) -> UnhurriedEngine:
        """The engine of a server that was started with `unhurried`."""
        assert isinstance(self.session.engine, UnhurriedEngine)
        return self.session.engine

    @property
    def is_idle(self) -> bool:
        """Whether nothing of any request is left."""
        metrics = self.desk.metrics
        return (
            self.session.engine.num_unfinished == 0
            and self.session.num_unfinished == 0
            and self.service.num_unfinished == 0
            and self.desk.admission.num_turns == 0
            and metrics.value("mmgen_turns_running") == 0
            and metrics.value("mmgen_turns_waiting") == 0
        )

    def close(self) -> None:
        self.client.close()
        self._server.should_exit = True
        self._thread.join(timeout=30)
        self.service.close()
        self.desk.previews.close()
        assert not self._thread.is_alive()


def unhurried(model: Path, seconds: float) -> Session:
    """Return a session whose engine's steps take at least some time."""
    checkpoint = open_checkpoint(model)
    engine = UnhurriedEngine(checkpoint.load_decoder(), num_rows=16)
    engine.seconds = seconds
    return Session(checkpoint, engine)


StartServer: TypeAlias = Callable[..., RunningServer]


def wait_until(is_so: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.005)


def png(colour: tuple[int, int, int] = (200, 30, 30), size: tuple[int, int] = (64, 64)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, format="PNG")
    return buffer.getvalue()


def png_uri(**options: Any) -> str:
    return f"data:image/png;base64,{base64.b64encode(png(**options)).decode()}"


def decoded(encoded: str) -> Image.Image:
    """Return the picture that a client makes of base64 or of a data URI."""
    data = base64.b64decode(encoded.rpartition(",")[2], validate=True)
    picture = Image.open(io.BytesIO(data))
    picture.load()
    return picture


def events_of(text: str) -> list[tuple[str | None, str]]:
    """Return the names and data of a stream of events."""
    found = []
    for block in text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines())
        if lines:
            found.append((lines.get("event"), lines["data"]))
    return found


def picture_part(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def error_of(answer: Any, status: int = 400) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    error: dict[str, Any] = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


def pixels(encoded: str) -> bytes:
    return decoded(encoded).tobytes()


@pytest.fixture
def start_server(tiny_checkpoint: Path) -> Iterator[StartServer]:
    with ExitStack() as stack:

        def start(
            *, seconds: float = 0.0, fetcher: Fetcher | None = None, **config: Any
        ) -> RunningServer:
            settings = ServerConfig(**{"model_name": "tiny", **config})
            server = RunningServer(unhurried(tiny_checkpoint, seconds), settings, fetcher)
            stack.callback(server.close)
            return server

        yield start


@pytest.fixture(scope="module")
def server(tiny_checkpoint: Path) -> Iterator[RunningServer]:
    """A server that the tests of a module share; each of them leaves it idle."""
    config = ServerConfig(model_name="tiny")
    server = RunningServer(unhurried(tiny_checkpoint, 0.0), config)
    try:
        yield server
        wait_until(lambda: server.is_idle)
    finally:
        server.close()
