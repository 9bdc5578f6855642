"""Several processes learn what one learns, stop together, and write one result."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mmgen.errors import SettingsError
from mmgen.train.config import TrainConfig
from mmgen.train.processes import Processes, current_processes, open_processes
from mmgen.train.records import read_records
from mmgen.train.state import latest_state, read_state
from mmgen.train.trainer import train
from tests.train.conftest import World

SCRIPT = """
import pickle, sys
from mmgen.train.processes import open_processes
from mmgen.train.run import run
with open(sys.argv[1], "rb") as file:
    config = pickle.load(file)
with open_processes() as processes:
    result = run(config)
print(processes.rank, result.done, result.stopped)
"""


def start(config: TrainConfig, count: int, folder: Path) -> list[subprocess.Popen[str]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "config").write_bytes(pickle.dumps(config))
    return [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(folder / "config")],
            env={
                **os.environ,
                "WORLD_SIZE": str(count),
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "OMP_NUM_THREADS": "1",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]


def finish(processes: list[subprocess.Popen[str]]) -> list[str]:
    results = [process.communicate(timeout=120) for process in processes]
    assert all(process.returncode == 0 for process in processes), results
    return [out.strip() for out, _ in results]


def losses(output: Path) -> list[float]:
    records = read_records(output / "log.jsonl")
    return [record["loss"] for record in records if "loss" in record]


def test_two_processes_learn_what_one_learns(world: World, tmp_path: Path) -> None:
    alone = replace(world.config, output=tmp_path / "alone")
    train(alone)
    together = replace(world.config, output=tmp_path / "together")
    assert finish(start(together, 2, tmp_path)) == ["0 ('run',) None", "1 ('run',) None"]
    assert losses(together.output) == pytest.approx(losses(alone.output), rel=1e-4)
    assert (together.output / "checkpoint" / "model.safetensors").is_file()
    again = finish(start(together, 2, tmp_path))
    assert again == ["0 () None", "1 () None"]


def test_they_stop_together_and_one_goes_on_alone(world: World, tmp_path: Path) -> None:
    config = replace(world.config, output=tmp_path / "run", num_steps=100_000, log_every=2)
    processes = start(config, 2, tmp_path)
    deadline = time.monotonic() + 60
    while not (config.output / "log.jsonl").is_file():
        assert time.monotonic() < deadline and processes[0].poll() is None
        time.sleep(0.1)
    processes[1].send_signal(signal.SIGTERM)
    assert finish(processes) == ["0 () run", "1 () run"]
    state = latest_state(config.output / "state")
    assert state is not None
    step = read_state(state)["step"]
    assert train(replace(config, num_steps=step + 2)).step == step + 2


def test_rows_that_cannot_be_shared_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"rows_per_batch is 10.* 4 processes.*multiple of 4"):
        Processes(0, 4).check_rows(10)


def test_one_process_has_everything_to_itself() -> None:
    with open_processes() as processes:
        assert processes == current_processes() == Processes(0, 1)
        tensor = torch.ones(3)
        processes.add_up([tensor])
        processes.check_alike([tensor])
        assert tensor.tolist() == [1, 1, 1]
        assert processes.largest(2.0, 3.0) == (2.0, 3.0)
