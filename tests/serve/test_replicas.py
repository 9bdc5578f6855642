"""Several engines and workers as one server: who gets what, and what is left when some die."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from mmgen.cli import serve as command
from mmgen.errors import EngineError, SettingsError
from mmgen.serve.board import ABSENT, Board
from mmgen.serve.merged_metrics import merged_metrics
from mmgen.serve.replicas import replica_devices
from mmgen.serve.router import Router
from tests.serve.conftest import RunningServer, events_of, wait_until
from tests.serve.test_server import end_of, serving

DRAWING = {"prompt": "a fox", "seed": 1}
PATH = "/v1/images/generations"


def test_a_board_is_shared_by_all_who_open_it(tmp_path: Path) -> None:
    board = Board.create(tmp_path / "board", 3)
    other = Board(tmp_path / "board")
    assert list(other.read()) == [ABSENT] * 3
    board.write(1, 2**40)
    other.write(2, 0)
    assert list(board.read()) == [ABSENT, 2**40, 0]
    board.close()
    other.close()


def test_replicas_with_the_least_to_do_come_first(tmp_path: Path) -> None:
    board = Board.create(tmp_path / "board", 4)
    for number, turns in enumerate([3, ABSENT, 1, 1]):
        board.write(number, turns)
    router = Router([tmp_path / "x"] * 4, board, favourite=3)
    assert router._choose(set()) == 3
    # What was passed on and is not on the board yet counts as well.
    router._in_flight[3] = 2
    assert router._choose(set()) == 2
    assert router._choose({2, 3}) == 0
    with pytest.raises(Exception, match="all engines have stopped"):
        router._choose({0, 2, 3})


def test_counters_of_replicas_are_told_apart() -> None:
    page = (
        "# HELP mmgen_images_total Pictures.\n# TYPE mmgen_images_total counter\n"
        'mmgen_images_total{kind="x"} 4.0\n'
    )
    found = merged_metrics([page, None, page.replace("4.0", "5.0")]).decode()
    assert 'mmgen_images_total{kind="x",replica="0"} 4.0' in found
    assert 'mmgen_images_total{kind="x",replica="2"} 5.0' in found
    assert [found.count(f'up{{replica="{n}"}} {v}') for n, v in enumerate((1.0, 0.0, 1.0))] == [
        1
    ] * 3
    assert found.count("# TYPE mmgen_images_total counter") == 1


def test_each_replica_gets_its_own_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5,6,7")
    assert replica_devices("torch", "cpu", (), 9) is None
    assert replica_devices("torch", "cuda", (), 2) == ("3", "5")
    with pytest.raises(SettingsError, match="5 replicas of 1 GPUs need 5, but 4 can be seen"):
        replica_devices("torch", "cuda", (), 5)
    with pytest.raises(SettingsError, match="'cuda:1' cannot serve all; say cuda"):
        replica_devices("torch", "cuda:1", (), 2)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    words = ("tensor-parallel-size=2",)
    assert replica_devices("vllm", "cpu", words, 2) == ("3,5", "6,7")


@pytest.fixture(scope="module")
def divided(
    tiny_checkpoint: Path,
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Two replicas and two workers."""
    words = ("--replicas", "2", "--workers", "2", "--max-turns", "3000", "--max-n", "2000")
    with serving(tiny_checkpoint, *words, MMGEN_API_KEY="secret", OMP_NUM_THREADS="1") as started:
        yield started


@pytest.fixture
def client(divided: tuple[str, subprocess.Popen[str]]) -> Iterator[httpx.Client]:
    headers = {"authorization": "Bearer secret"}
    with httpx.Client(base_url=divided[0], timeout=60, headers=headers) as client:
        yield client


def turns(client: httpx.Client) -> list[int | None]:
    return [item.get("turns") for item in client.get("/health").json()["replicas"]]


def counted(client: httpx.Client, name: str) -> list[float]:
    text = client.get("/metrics").text
    return [
        float(re.search(rf'^{name}{{[^}}]*replica="{number}"[^}}]*}} (\S+)$', text, re.M)[1])  # type: ignore[index]
        for number in range(2)
    ]


def test_a_divided_server_answers_like_one(client: httpx.Client, server: RunningServer) -> None:
    drawn = client.post(PATH, json=DRAWING).json()["data"][0]
    assert drawn["b64_json"] == server.draw("a fox", seed=1).json()["data"][0]["b64_json"]
    events = events_of(client.post(PATH, json=DRAWING | {"stream": True}).text)
    assert events[-1][0] == "image_generation.completed"
    assert client.get("/v1/models").json()["data"][0]["id"] == "tiny"
    assert client.post(PATH, json={}).json()["error"]["param"] == "prompt"
    assert client.get("/nowhere").status_code == 404
    assert client.post(PATH, json=DRAWING, headers={"authorization": "-"}).status_code == 401
    assert "/v1/images/generations" in client.get("/openapi.json").json()["paths"]
    assert client.get("/health").json() == {
        "status": "ok",
        "replicas": [{"status": "ok", "turns": 0}] * 2,
    }


def test_work_goes_to_the_replica_that_has_less(client: httpx.Client) -> None:
    before = counted(client, "mmgen_images_total")
    with client.stream("POST", PATH, json=DRAWING | {"n": 2000, "stream": True}) as stream:
        lines = stream.iter_lines()
        next(lines)
        busy = max(range(2), key=lambda number: turns(client)[number] or 0)
        assert turns(client)[busy] == 2000
        for _ in range(3):
            assert client.post(PATH, json=DRAWING).status_code == 200
        assert counted(client, "mmgen_images_total")[1 - busy] == before[1 - busy] + 3
    # The client has gone, so its pictures are given up.
    wait_until(lambda: turns(client) == [0, 0])
    assert sum(counted(client, "mmgen_images_total")) < sum(before) + 2003


def parts_of(process: subprocess.Popen[str]) -> list[int]:
    """Return the processes of a divided server: its replicas, then its workers."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [
        int(child)
        for child in children
        if b"--multiprocessing-fork" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]


def has_ended(process: int) -> bool:
    """Return whether a process has ended, be it collected by its parent yet or not."""
    try:
        return not Path(f"/proc/{process}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_whoever_dies_takes_only_its_own_work_along(
    tiny_checkpoint: Path, server: RunningServer
) -> None:
    words = ("--replicas", "2", "--workers", "2", "--max-turns", "3000", "--max-n", "2000")
    expected = server.draw("a fox", seed=1).json()["data"][0]["b64_json"]
    with (
        serving(tiny_checkpoint, *words, OMP_NUM_THREADS="1") as (address, process),
        httpx.Client(base_url=address, timeout=60) as client,
    ):
        first, second, *workers = parts_of(process)
        assert len(workers) == 2
        kept: list[httpx.Response] = []
        with client.stream("POST", PATH, json=DRAWING | {"n": 2000, "stream": True}) as stream:
            lines = stream.iter_lines()
            next(lines)
            busy = max(range(2), key=lambda number: turns(client)[number] or 0)
            other = threading.Thread(
                target=lambda: kept.append(httpx.post(address + PATH, json=DRAWING | {"n": 20}))
            )
            other.start()
            wait_until(lambda: turns(client)[1 - busy] == 20 or bool(kept))
            os.kill((first, second)[busy], signal.SIGKILL)
            said = list(lines)
        assert "event: error" in said[-4:]
        assert "the engine that worked on this request has stopped" in "".join(said[-4:])
        other.join()
        assert kept[0].json()["data"][0]["b64_json"] == expected
        health = client.get("/health")
        assert (health.status_code, health.json()["status"]) == (200, "degraded")
        assert health.json()["replicas"][busy] == {"status": "stopped"}
        assert f'mmgen_replica_up{{replica="{busy}"}} 0.0' in client.get("/metrics").text
        assert client.post(PATH, json=DRAWING).json()["data"][0]["b64_json"] == expected

        os.kill(workers[0], signal.SIGKILL)
        # Its connections are gone with it; the address is served by the other.
        wait_until(lambda: has_ended(workers[0]))
        for _ in range(3):
            assert httpx.post(address + PATH, json=DRAWING).status_code == 200

        os.kill((first, second)[1 - busy], signal.SIGKILL)
        status, out, err = end_of(process)
    assert (status, out) == (1, "")
    assert (
        f"mmgen: replica {busy} has died (killed by SIGKILL); what it worked on failed, 1 of 2"
        in err
    )
    assert "mmgen: worker 0 has died (killed by SIGKILL); what it worked on failed, 1 of 2" in err
    assert "every replica of the server has died" in err
    assert "Traceback" not in err


@pytest.mark.slow
def test_what_runs_is_finished_before_all_end(tiny_checkpoint: Path) -> None:
    with serving(tiny_checkpoint, "--replicas", "2", "--max-n", "40") as (address, process):
        parts = parts_of(process)
        answers: list[httpx.Response] = []
        body = DRAWING | {"n": 40}
        thread = threading.Thread(
            target=lambda: answers.append(httpx.post(address + PATH, json=body, timeout=60))
        )
        thread.start()
        with httpx.Client(base_url=address) as client:
            wait_until(lambda: 40 in turns(client) or not thread.is_alive())
        process.send_signal(signal.SIGINT)
        thread.join()
        status, out, err = end_of(process)
    assert [answer.status_code for answer in answers] == [200]
    assert (status, out) == (0, "")
    assert err.endswith("mmgen: the server has ended\n")
    assert not any(Path(f"/proc/{part}").exists() for part in parts)


@pytest.mark.slow
def test_replicas_end_with_the_process_that_started_them(tiny_checkpoint: Path) -> None:
    with serving(tiny_checkpoint, "--replicas", "2") as (_, process):
        parts = parts_of(process)
        process.kill()
        wait_until(lambda: not any(Path(f"/proc/{part}").exists() for part in parts))


def test_a_replica_that_cannot_start_is_told(tmp_path: Path) -> None:
    result = CliRunner().invoke(
        command.serve, [str(tmp_path / "none"), "--port", "0", "--replicas", "2"]
    )
    assert isinstance(result.exception, EngineError)
    assert "replica 0 does not start" in str(result.exception)
    assert "no such directory" in str(result.exception)
    words = ["--engine", "vllm", "--replicas", "2", "--vllm", "nnodes=2"]
    several = CliRunner().invoke(command.serve, words)
    assert "engines of one machine; leave nnodes out" in str(several.exception)
    wrong = CliRunner().invoke(command.serve, ["--port", "0", "--vllm", "seed=1"])
    assert "'seed=1' is a setting of vLLM; choose that engine" in str(wrong.exception)
