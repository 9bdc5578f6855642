from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from PIL import Image

from mmgen.batch.assembly import BatchConfig, Job
from mmgen.batch.backend import SessionBackend
from mmgen.batch.job import JobDirectory
from mmgen.batch.opening import open_backend
from mmgen.batch.readers import open_reader
from mmgen.batch.rows import Row
from mmgen.batch.runner import RunnerConfig
from mmgen.batch.survey import survey
from mmgen.batch.tasks import AbstractTask
from mmgen.batch.tasks.caption import CaptionSettings, CaptionTask
from mmgen.batch.tasks.generate import GenerateSettings, GenerateTask
from mmgen.batch.writers import OutputForm
from mmgen.generate.scoring import scorer_of
from mmgen.generate.session import Session

COLOURS = ("red", "green", "blue", "white", "black", "yellow")


@pytest.fixture(scope="session")
def backend(tiny_checkpoint: Path) -> SessionBackend:
    """A backend that one job after another uses."""
    return open_backend(tiny_checkpoint, parts="both", rows_per_request=2, num_rows=16)


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    """Twenty rows, some with an id or settings of their own."""
    rows: list[dict[str, Any]] = [{"prompt": f"draw a {COLOURS[n % 6]} {n}"} for n in range(20)]
    rows[3] |= {"id": "three", "seed": 7, "size": "32x32"}
    rows[4] |= {"guidance": 1.0, "temperature": 0.5}
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of twelve pictures of several sizes and formats, some in a folder of their own."""
    folder = tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    for number in range(12):
        picture = Image.new("RGB", (40 + number, 50), COLOURS[number % 6])
        name = f"more/{number:02d}.jpg" if number % 3 == 0 else f"{number:02d}.png"
        picture.save(folder / name)
    return folder


MakeJob = Callable[..., Job]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file that follows from the job alone."""
    leave = {"log.jsonl", "report.json", "report.html", "lock"}
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in leave
    }


def _drawing(settings: GenerateSettings, session: Session) -> GenerateTask:
    return GenerateTask(settings, session.checkpoint, model="tiny", scorer=scorer_of(session))


@pytest.fixture
def make_job(backend: SessionBackend, tmp_path: Path) -> MakeJob:
    """Return a function that makes a job of a source, in a directory of the test."""

    def make(
        source: Path | str,
        task: str = "generate",
        *,
        name: str = "job",
        forms: Sequence[OutputForm] = (),
        settings: GenerateSettings | CaptionSettings | None = None,
        runner: RunnerConfig | None = None,
        **config: Any,
    ) -> Job:
        session = backend.session
        made: AbstractTask
        check: Callable[[Row], object]
        if task == "generate":
            drawing = settings or GenerateSettings(size=(32, 32))
            assert isinstance(drawing, GenerateSettings)
            made, check = _drawing(drawing, session), drawing.request
        else:
            looking = settings or CaptionSettings(max_tokens=6)
            assert isinstance(looking, CaptionSettings)
            keep = bool({"parquet", "webdataset"} & set(forms))
            made = CaptionTask(
                looking,
                session.checkpoint,
                session.codec,
                keep_pictures=keep,
                scorer=scorer_of(session),
            )
            check = looking.check
        reader = open_reader(str(source), meaning="prompt" if task == "generate" else "picture")
        return Job(
            directory=JobDirectory(tmp_path / name),
            reader=reader,
            survey=survey(reader, check),
            check=check,
            task=made,
            backend=backend,
            checkpoint=session.checkpoint,
            codec=session.codec,
            config=BatchConfig(
                forms=tuple(forms), runner=runner or RunnerConfig(backoff=0.01), **config
            ),
        )

    return make


class Stranger:
    """A plain server with OpenAI's routes that knows nothing of mmgen and says what it is told."""

    def __init__(self) -> None:
        self.models = ["stranger"]
        self.status = 200
        """Of what it tells about models."""
        self.seen: list[dict[str, Any]] = []
        self.answer: Callable[[dict[str, Any]], Any] = lambda body: {}
        stranger = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.reply(stranger.status, {"data": [{"id": name} for name in stranger.models]})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                stranger.seen.append(body | {"path": self.path})
                answer = stranger.answer(body)
                self.reply(*(answer if isinstance(answer, tuple) else (200, answer)))

            def reply(
                self, status: int, content: Any, headers: Mapping[str, str] = MappingProxyType({})
            ) -> None:
                data = json.dumps(content).encode()
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *parts: Any) -> None:
                pass

        self._handler = Handler
        self._port = 0
        self.live()

    def live(self) -> None:
        """Listen, at the same address as before."""
        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), self._handler)
        self._port = self._server.server_port
        self.address = f"http://127.0.0.1:{self._port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def die(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def stranger() -> Iterator[Stranger]:
    server = Stranger()
    yield server
    server.die()
