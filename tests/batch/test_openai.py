from __future__ import annotations

import base64
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from PIL import Image

from mmgen.batch.assembly import Summary
from mmgen.batch.job import JobDirectory
from mmgen.batch.openai_files import BatchFileReader
from mmgen.batch.openai_job import OpenAiJob, run_openai_job
from mmgen.batch.posting import AbstractPoster, AppPoster, EndpointPoster, Message
from mmgen.batch.rows import BrokenRow
from mmgen.batch.runner import RunnerConfig
from mmgen.batch.survey import survey
from mmgen.cli.batch import batch
from mmgen.errors import DataError, MmgenError, SettingsError

URLS = ("/v1/echo", "/v1/refuse", "/v1/busy", "/v1/garbage")


class Echo:
    """An application that gives bodies back, refuses, is busy the first time, or stammers."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.seen: list[Any] = []
        self.num_open = self.most_open = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        import asyncio

        message: Message = await receive()
        body = json.loads(message["body"])
        self.num_open += 1
        self.most_open = max(self.most_open, self.num_open)
        await asyncio.sleep(self.seconds)
        self.num_open -= 1
        is_new = body not in self.seen
        self.seen.append(body)
        status, answer = 200, json.dumps({"id": f"echo-{body['n']}", "echo": body}).encode()
        if scope["path"] == "/v1/refuse":
            status, answer = 400, b'{"error": {"message": "no"}}'
        elif scope["path"] == "/v1/busy" and is_new:
            status, answer = 503, b"{}"
        elif scope["path"] == "/v1/garbage":
            answer = b"<html>"
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": answer})


def line(number: int, url: str = "/v1/echo", **changes: Any) -> dict[str, Any]:
    body = {"n": number, "odd ø": [None, {"deep": 1.5}]}
    content = {"custom_id": f"id {number}/ø", "method": "POST", "url": url, "body": body}
    return {name: value for name, value in {**content, **changes}.items() if value is not ...}


def write(path: Path, lines: Sequence[dict[str, Any] | str]) -> Path:
    texts = (item if isinstance(item, str) else json.dumps(item) for item in lines)
    path.write_text("".join(f"{text}\n" for text in texts))
    return path


def run(
    folder: Path, source: Path, poster: AbstractPoster, *, workers: int = 4, **options: Any
) -> Summary:
    reader = BatchFileReader([str(source)], URLS)
    job = OpenAiJob(
        directory=JobDirectory(folder),
        reader=reader,
        survey=survey(reader, lambda row: None),
        poster=poster,
        config=RunnerConfig(num_workers=workers, backoff=0.001, max_attempts=2),
    )
    return run_openai_job(job, **options)


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in path.read_text().splitlines()]


def test_every_line_gets_its_answer_or_its_error(tmp_path: Path) -> None:
    urls = ["/v1/echo", "/v1/refuse", "/v1/busy", "/v1/garbage"]
    source = write(tmp_path / "in.jsonl", [line(n, urls[n % 4]) for n in range(20)])
    with AppPoster(Echo(), "echo") as poster:
        summary = run(tmp_path / "job", source, poster)
    answered, failed = (
        lines_of(tmp_path / "job/output.jsonl"),
        lines_of(tmp_path / "job/errors.jsonl"),
    )
    assert [item["custom_id"] for item in answered] == [f"id {n}/ø" for n in range(0, 20, 2)]
    for item in answered:
        assert item["error"] is None and set(item) == {"id", "custom_id", "response", "error"}
        number = int(item["id"].removeprefix("batch_req_"))
        assert item["response"]["status_code"] == 200
        assert item["response"]["request_id"] == f"echo-{number}"
        assert item["response"]["body"]["echo"] == line(number)["body"]
    assert [item["custom_id"] for item in failed] == [f"id {n}/ø" for n in range(1, 20, 2)]
    assert failed[0]["response"]["status_code"] == 400
    assert failed[0]["response"]["body"] == {"error": {"message": "no"}}
    assert failed[1]["response"] is None and failed[1]["error"]["code"] == "EngineError"
    assert "something that is not JSON" in failed[1]["error"]["message"]
    assert summary.num_done == 20 and summary.num_failed == 10 and summary.is_complete
    assert summary.faults == {"EngineError": 5, "refused": 5}


def test_requests_are_under_way_together_and_no_more_than_asked(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [line(n) for n in range(40)])
    app = Echo(seconds=0.01)
    with AppPoster(app, "echo") as poster:
        run(tmp_path / "job", source, poster, workers=8)
    assert 4 <= app.most_open <= 8


def test_a_stopped_job_goes_on_and_asks_nothing_twice(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [line(n) for n in range(60)])
    app, stop = Echo(seconds=0.002), threading.Event()

    def watch(progress: Any) -> None:
        if progress.num_done >= 20:
            stop.set()

    with AppPoster(app, "echo") as poster:
        first = run(tmp_path / "job", source, poster, stop=stop, on_progress=watch)
        assert 20 <= first.num_done < 60 and not first.is_complete
        second = run(tmp_path / "job", source, poster)
        assert second.is_complete and second.num_before == first.num_done
        third = run(tmp_path / "job", source, poster)
        assert third.num_before == 60
    assert len(app.seen) == 60
    answered = lines_of(tmp_path / "job/output.jsonl")
    assert [item["custom_id"] for item in answered] == [f"id {n}/ø" for n in range(60)]


def test_another_file_or_another_model_does_not_go_on(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [line(0)])
    with AppPoster(Echo(), "echo") as poster:
        run(tmp_path / "job", source, poster)
        other = write(tmp_path / "other.jsonl", [line(1)])
        with pytest.raises(SettingsError, match=r"input\.digest was"):
            run(tmp_path / "job", other, poster)
    with (
        AppPoster(Echo(), "someone") as poster,
        pytest.raises(SettingsError, match=r'answered_by was "echo" and is "someone"'),
    ):
        run(tmp_path / "job", source, poster)


def test_what_got_no_answer_is_asked_again(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [line(n, "/v1/busy") for n in range(3)])
    app = Echo()
    reader = BatchFileReader([str(source)], URLS)
    with AppPoster(app, "echo") as poster:
        job = OpenAiJob(
            directory=JobDirectory(tmp_path / "job"),
            reader=reader,
            survey=survey(reader, lambda row: None),
            poster=poster,
            config=RunnerConfig(max_attempts=1),
        )
        first = run_openai_job(job)
        assert first.faults == {"TransientError": 3}
        assert run_openai_job(job).num_failed == 3
        assert run_openai_job(job, retry_failed=True).num_failed == 0
    assert lines_of(tmp_path / "job/errors.jsonl") == []
    assert len(lines_of(tmp_path / "job/output.jsonl")) == 3


BROKEN: list[tuple[dict[str, Any] | str, str]] = [
    ("{", "line 2 of in.jsonl: Expecting property name"),
    ("[1]", "a list, expected an object"),
    (line(1, custom_id=...), "it has no custom_id; expected custom_id, method, url, body"),
    (line(1, extra=1), "it has the field 'extra'"),
    (line(1, custom_id=7), "custom_id must be text, got 7"),
    (line(1, method="GET"), "method must be 'POST', got 'GET'"),
    (line(1, url="/v1/embeddings"), "there is no url '/v1/embeddings'; choose one of /v1/echo"),
    (line(1, body=[]), r"body must be an object, got \[\]"),
    (line(1, body={"stream": True}), "a batch has no streams"),
]


@pytest.mark.parametrize(("bad", "message"), BROKEN)
def test_a_bad_line_is_told_and_the_others_are_answered(
    tmp_path: Path, bad: dict[str, Any] | str, message: str
) -> None:
    source = write(tmp_path / "in.jsonl", [line(0), bad, line(2)])
    rows = list(BatchFileReader([str(source)], URLS).rows())
    assert isinstance(rows[1], BrokenRow)
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(rows[1].reason)
    with AppPoster(Echo(), "echo") as poster:
        run(tmp_path / "job", source, poster)
    (failed,) = lines_of(tmp_path / "job/errors.jsonl")
    assert failed["response"] is None and failed["error"]["message"] == rows[1].reason
    assert len(lines_of(tmp_path / "job/output.jsonl")) == 2


def test_an_id_that_comes_twice_is_refused_at_once(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [line(0), line(1), line(0)])
    with pytest.raises(DataError, match="rows 1 and 3 have the same id 'id 0/ø'"):
        survey(BatchFileReader([str(source)], URLS), lambda row: None)


@pytest.fixture
def server() -> Iterator[str]:
    """A plain web server that gives bodies and the key back."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            answer = {"id": "x", "echo": body, "key": self.headers.get("authorization")}
            data = json.dumps(answer).encode()
            self.send_response(404 if self.path == "/v1/refuse" else 200)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *parts: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()
        thread.join()


def test_a_server_is_asked_with_the_same_bodies(tmp_path: Path, server: str) -> None:
    source = write(tmp_path / "in.jsonl", [line(0), line(1, "/v1/refuse")])
    summary = run(tmp_path / "job", source, EndpointPoster(f"{server}/v1/", api_key="secret"))
    (answered,) = lines_of(tmp_path / "job/output.jsonl")
    assert answered["response"]["body"]["echo"] == line(0)["body"]
    assert answered["response"]["body"]["key"] == "Bearer secret"
    (refused,) = lines_of(tmp_path / "job/errors.jsonl")
    assert refused["response"]["status_code"] == 404 and summary.num_failed == 1


def test_a_server_that_is_not_there_is_tried_again_and_told(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [line(0)])
    run(tmp_path / "job", source, EndpointPoster("http://127.0.0.1:9"))
    (failed,) = lines_of(tmp_path / "job/errors.jsonl")
    assert failed["error"]["code"] == "TransientError"
    assert "http://127.0.0.1:9 does not answer" in failed["error"]["message"]
    with pytest.raises(SettingsError, match="an endpoint is an address such as"):
        EndpointPoster("localhost:8000")


def test_the_command_answers_with_a_model(tmp_path: Path, tiny_checkpoint: Path) -> None:
    pytest.importorskip("fastapi")
    drawing = {"prompt": "draw a red circle", "seed": 1, "n": 2, "size": "32x32"}
    asking = {"messages": [{"role": "user", "content": "what is this?"}], "max_tokens": 4}
    asking |= {"modalities": ["text"], "seed": 5, "temperature": 0.0}
    source = write(
        tmp_path / "in.jsonl",
        [
            line(0, "/v1/images/generations", body=drawing),
            line(1, "/v1/chat/completions", body=asking),
            line(2, "/v1/chat/completions", body=asking | {"bogus": 1}),
        ],
    )
    words = ["run", str(source), "-o", str(tmp_path / "job"), "--model", str(tiny_checkpoint)]
    done = CliRunner().invoke(batch, words)
    assert done.exit_code == 1, done.output
    assert "2 of 3 rows answered, 1 failed" in done.output
    drawn, said = lines_of(tmp_path / "job/output.jsonl")
    assert len(drawn["response"]["body"]["data"]) == 2
    data = base64.b64decode(drawn["response"]["body"]["data"][0]["b64_json"])
    assert Image.open(io.BytesIO(data)).size == (32, 32)
    assert said["response"]["body"]["choices"][0]["message"]["role"] == "assistant"
    (refused,) = lines_of(tmp_path / "job/errors.jsonl")
    assert refused["response"]["body"]["error"]["param"] == "bogus"
    dry = CliRunner().invoke(batch, [*words[:3], str(tmp_path / "dry"), "--dry-run"])
    assert dry.exit_code == 0 and "3 requests, 0 that cannot be answered" in dry.output
    assert not (tmp_path / "dry").exists()


@pytest.mark.parametrize("option", ["--model", "--model-name"])
def test_a_server_and_a_model_exclude_each_other(tmp_path: Path, option: str) -> None:
    source = write(tmp_path / "in.jsonl", [line(0)])
    words = ["run", str(source), "-o", str(tmp_path / "job"), "--endpoint", "http://x", option, "m"]
    done = CliRunner().invoke(batch, words)
    assert isinstance(done.exception, MmgenError) and "of its own" in str(done.exception)


SCRIPT = """\
import sys
from pathlib import Path
from tests.batch.test_openai import Echo, run
from mmgen.batch.posting import AppPoster
with AppPoster(Echo(seconds=0.02), "echo") as poster:
    run(Path(sys.argv[1]), Path(sys.argv[2]), poster)
"""


@pytest.mark.slow
def test_killed_at_any_moment_every_line_is_answered_once(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [line(n) for n in range(300)])
    root = Path(__file__).parents[2]
    words = [sys.executable, "-c", SCRIPT, str(tmp_path / "job"), str(source)]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    log = tmp_path / "job/log.jsonl"

    def num_done() -> int:
        return log.read_bytes().count(b"\n") if log.exists() else 0

    for kill in range(5):
        process = subprocess.Popen(words, cwd=root, env=environment, stdout=subprocess.DEVNULL)
        wanted = num_done() + 25
        while num_done() < wanted and process.poll() is None:
            time.sleep(0.001)
        time.sleep(0.003 * kill)
        assert process.poll() is None, "it was to be killed while at work"
        process.send_signal(signal.SIGKILL)
        process.wait()
        for name in ("output.jsonl", "errors.jsonl"):
            whole = (tmp_path / "job" / name).read_bytes().split(b"\n")[:-1]
            assert all(json.loads(text) for text in whole)
    assert 125 <= num_done() < 300
    subprocess.run(words, cwd=root, env=environment, stdout=subprocess.DEVNULL, check=True)
    answered = lines_of(tmp_path / "job/output.jsonl")
    assert [item["custom_id"] for item in answered] == [f"id {n}/ø" for n in range(300)]
    assert lines_of(tmp_path / "job/errors.jsonl") == []
