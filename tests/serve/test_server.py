"""`mmgen serve` as a process: what it prints, how it ends, what it refuses to start with."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from mmgen.cli import serve as command
from mmgen.errors import MmgenError, OutputError, PluginError, SettingsError
from mmgen.serve.listening import address_of, bind

ROOT = Path(__file__).parents[2]


@contextmanager
def serving(
    model: Path, *words: str, **variables: str
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Give the address and the process of a server."""
    process = subprocess.Popen(
        [sys.executable, "-m", "mmgen", "serve", str(model), "--port", "0", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | variables,
    )
    try:
        assert process.stderr is not None
        lines: list[str] = []
        for line in process.stderr:
            lines.append(line)
            found = re.search(r"serving \S+ at (http://\S+)/v1", line)
            if found:
                yield found[1], process
                break
        else:
            pytest.fail("".join(lines))
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def end_of(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_a_signal_ends_the_server_after_its_work(tiny_checkpoint: Path, number: int) -> None:
    with serving(tiny_checkpoint) as (address, process):
        answers: list[httpx.Response] = []

        def draw() -> None:
            body = {"prompt": "a fox", "n": 10}
            answers.append(httpx.post(f"{address}/v1/images/generations", json=body, timeout=60))

        thread = threading.Thread(target=draw)
        thread.start()
        while "mmgen_turns_running 10.0" not in httpx.get(f"{address}/metrics").text:
            time.sleep(0.01)
        process.send_signal(number)
        thread.join()
        assert [answer.status_code for answer in answers] == [200]
        status, out, err = end_of(process)
        assert (status, out) == (0, "")
        assert err.endswith("mmgen: the server has ended\n")
        assert "Traceback" not in err
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{address}/health")


@pytest.mark.slow
def test_what_does_not_finish_in_time_is_cancelled(tiny_checkpoint: Path) -> None:
    words = ("--shutdown-seconds", "1", "--max-turns", "400", "--max-n", "400")
    with serving(tiny_checkpoint, *words) as (address, process):
        url, body = f"{address}/v1/images/generations", {"prompt": "a fox", "n": 400}
        with httpx.stream("POST", url, json=body | {"stream": True}, timeout=60) as stream:
            next(stream.iter_lines())
            started = time.monotonic()
            process.send_signal(signal.SIGTERM)
            status, _, err = end_of(process)
        assert status == 0
        assert time.monotonic() - started < 10
        assert "the server has ended" in err


def test_the_key_comes_from_the_environment_too(tiny_checkpoint: Path) -> None:
    with serving(tiny_checkpoint, "--model-name", "fox", MMGEN_API_KEY="secret") as (address, _):
        assert httpx.get(f"{address}/v1/models").status_code == 401
        known = httpx.get(f"{address}/v1/models", headers={"authorization": "Bearer secret"})
        assert known.json()["data"][0]["id"] == "fox"
        assert httpx.get(f"{address}/health").status_code == 200


@pytest.mark.slow
def test_requests_are_logged_when_asked_for(tiny_checkpoint: Path) -> None:
    with serving(tiny_checkpoint, "--log-requests", "--host", "0.0.0.0") as (address, process):
        port = address.rpartition(":")[2]
        httpx.get(f"http://127.0.0.1:{port}/health")
        process.send_signal(signal.SIGTERM)
        status, out, err = end_of(process)
    assert (status, out) == (0, "")
    assert "GET /health" in err


def refused(*words: str) -> MmgenError:
    result = CliRunner().invoke(command.serve, words)
    assert isinstance(result.exception, MmgenError), result.output
    assert result.stdout == ""
    return result.exception


def test_a_taken_port_is_told_before_the_model_is_loaded() -> None:
    with bind("127.0.0.1", 0) as taken:
        taken.listen()
        port = str(taken.getsockname()[1])
        error = refused("no-such-model", "--port", port)
    assert isinstance(error, OutputError)
    assert f"port {port}: Address already in use; choose another" in str(error)


def test_bad_settings_are_refused_before_anything_else() -> None:
    assert "is empty" in str(refused("--api-key", " "))
    assert "without scheme" in str(refused("--allow-url-host", "https://a.org/b"))
    assert "with a name" in str(refused("--allow-url-host", "10.0.0.1"))
    assert "max_turns must be 1 or more" in str(refused("--max-turns", "0"))
    assert "could never be served" in str(refused("--max-turns", "4"))
    assert isinstance(refused("--max-n", "-1"), SettingsError)


def test_a_host_that_is_not_here_is_refused() -> None:
    with pytest.raises(OutputError, match="cannot listen on"):
        bind("203.0.113.7", 0)
    with pytest.raises(OutputError, match="cannot listen on"):
        bind("no such host", 0)


def test_an_unknown_model_is_refused(tmp_path: Path) -> None:
    assert "no such directory" in str(refused(str(tmp_path / "none"), "--port", "0"))


def test_addresses_are_those_of_clients() -> None:
    with bind("127.0.0.1", 0) as listener:
        assert address_of(listener) == f"http://127.0.0.1:{listener.getsockname()[1]}"
    if socket.has_ipv6:
        try:
            with bind("::1", 0) as listener:
                assert address_of(listener).startswith("http://[::1]:")
        except OutputError:
            pytest.skip("this machine has no IPv6")


def test_without_the_extra_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "EXTRA", ("fastapi", "a_package_that_is_missing"))
    error = refused()
    assert isinstance(error, PluginError)
    assert str(error) == (
        "serving needs a_package_that_is_missing; install with pip install 'mmgen[serve]'"
    )
