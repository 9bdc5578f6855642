"""Servers that die, are busy or send elsewhere, and jobs on them that are stopped or killed."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

pytest.importorskip("fastapi")

from mmgen.batch.assembly import BatchConfig, Job, Progress, run_job
from mmgen.batch.backend import NoEngine
from mmgen.batch.endpoint import Endpoint, ServedModel
from mmgen.batch.job import JobDirectory
from mmgen.batch.posting import EndpointPoster
from mmgen.batch.readers import open_reader
from mmgen.batch.runner import RunnerConfig
from mmgen.batch.survey import survey
from mmgen.batch.tasks.caption import CaptionSettings
from mmgen.batch.tasks.endpoint_caption import EndpointCaptionTask
from tests.batch.conftest import Stranger
from tests.batch.test_endpoint import answered, lines_of, run, said


def test_a_server_that_dies_fails_the_rest_which_are_tried_again_later(
    stranger: Stranger, tmp_path: Path
) -> None:
    death, calls = threading.Thread(target=stranger.die), itertools.count(1)

    def answer(body: dict[str, Any]) -> Any:
        call = next(calls)
        if call == 10:
            death.start()
        # Those that are under way then are answered, after it has stopped listening.
        time.sleep(0.1 if call >= 10 else 0)
        return said("a fox")

    stranger.answer = answer
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    source = tmp_path / "rows.jsonl"
    source.write_text('{"image": "a.png"}\n' * 40)
    words = ("caption", source, "-o", tmp_path / "job", "--prompt", "what?", "--endpoint",
             stranger.address, "--attempts", 2, "--concurrency", 16)  # fmt: skip
    done = run(*words)
    death.join()
    stranger.live()
    assert done.exit_code == 1, done.output
    faults = lines_of(tmp_path / "job/errors.jsonl")
    assert 0 < len(faults) <= 31
    assert {(fault["error"], fault["attempts"]) for fault in faults} == {("TransientError", 2)}
    assert f"{40 - len(faults)} of 40 rows answered" in done.stderr
    stranger.answer = lambda body: said("a fox")
    answered(run(*words, "--retry-failed"))
    found = lines_of(tmp_path / "job/results.jsonl")
    assert [line["row"] for line in found] == list(range(40))
    assert lines_of(tmp_path / "job/errors.jsonl") == []


def test_a_busy_server_is_given_the_time_it_asks_for(stranger: Stranger, tmp_path: Path) -> None:
    times: list[float] = []

    def answer(body: dict[str, Any]) -> Any:
        times.append(time.monotonic())
        return said("a fox") if len(times) > 1 else (429, {"error": "busy"}, {"Retry-After": "2"})

    stranger.answer = answer
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    words = ("caption", tmp_path / "a.png", "-o", tmp_path / "job", "--prompt", "what?")
    answered(run(*words, "--endpoint", stranger.address))
    first, second = times
    assert second - first >= 2


def test_a_server_that_sends_elsewhere_is_not_followed(stranger: Stranger, tmp_path: Path) -> None:
    stranger.answer = lambda body: (302, {}, {"Location": "http://127.0.0.1:9/v1"})
    (tmp_path / "p.txt").write_text("a fox\n")
    words = ("generate", tmp_path / "p.txt", "-o", tmp_path / "job", "--endpoint", stranger.address)
    assert run(*words).exit_code == 1
    (fault,) = lines_of(tmp_path / "job/errors.jsonl")
    assert "sends its callers on to http://127.0.0.1:9/v1; give the address" in fault["reason"]


def test_a_stop_waits_for_what_is_under_way_and_no_more(stranger: Stranger, tmp_path: Path) -> None:
    """Rows that wait for their turn keep for the next run."""

    def answer(body: dict[str, Any]) -> Any:
        time.sleep(0.05)
        return said("a fox")

    stranger.answer = answer
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    source = tmp_path / "rows.jsonl"
    source.write_text('{"image": "a.png"}\n' * 60)
    reader = open_reader(str(source), meaning="picture")
    endpoint = Endpoint(EndpointPoster(stranger.address), ServedModel(name="stranger"))
    task = EndpointCaptionTask(CaptionSettings(prompt="what?"), endpoint)
    job = Job(
        directory=JobDirectory(tmp_path / "job"),
        reader=reader,
        survey=survey(reader, task.check),
        check=task.check,
        task=task,
        backend=NoEngine(endpoint.description),
        config=BatchConfig(forms=(), runner=RunnerConfig(num_workers=4)),
    )
    stop = threading.Event()

    def watch(progress: Progress) -> None:
        if progress.num_done >= 4:
            stop.set()

    first = run_job(job, stop=stop, on_progress=watch)
    # 4 were done, 4 or so under way; 16 had been handed to the threads.
    assert 4 <= first.num_done <= 13
    second = run_job(job)
    assert second.is_complete and second.num_failed == 0 and len(stranger.seen) == 60


def test_killed_and_continued_every_row_is_answered_once(
    stranger: Stranger, tmp_path: Path
) -> None:
    def answer(body: dict[str, Any]) -> Any:
        time.sleep(0.01)
        return said(f"seed {body['seed']}")

    stranger.answer = answer
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    source = tmp_path / "rows.jsonl"
    source.write_text('{"image": "a.png"}\n' * 200)
    words = ("caption", source, "--prompt", "what?", "--endpoint", stranger.address,
             "--concurrency", 4, "-o")  # fmt: skip
    log = tmp_path / "job/log.jsonl"
    process = subprocess.Popen(
        [sys.executable, "-m", "mmgen", "batch", *map(str, words), tmp_path / "job"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not (log.exists() and log.read_bytes().count(b"\n") > 40):
        time.sleep(0.005)
        assert process.poll() is None
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    num_before = log.read_bytes().count(b"\n")
    assert 40 < num_before < 200
    assert f"{200 - num_before} in this run" in answered(run(*words, tmp_path / "job"))
    answered(run(*words, tmp_path / "whole"))
    results = (tmp_path / "job/results.jsonl").read_bytes()
    assert results == (tmp_path / "whole/results.jsonl").read_bytes()
    assert results.count(b"\n") == 200
