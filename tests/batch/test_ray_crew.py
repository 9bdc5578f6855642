"""The same job on a real Ray cluster of two workers, begun on this machine and ended with the test.

In processes of their own, as a cluster leaves threads and files behind that no test wants.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed"),
]


def command(source: Path, folder: Path, model: Path, *words: str) -> list[str]:
    return [
        *(sys.executable, "-m", "mmgen", "batch", "generate", str(source), "-o", str(folder)),
        *("--model", str(model), "--size", "32x32", "--to", "codes", "--to", "files", *words),
    ]


def environment() -> dict[str, str]:
    # Ray's workers give way to everything else on a machine, also to what else is tested here.
    return {**os.environ, "RAY_worker_niceness": "0", "OMP_NUM_THREADS": "1"}


def files_of(folder: Path) -> dict[str, bytes]:
    """Return what a job gave, by name."""
    names = ["results.jsonl", "errors.jsonl"]
    found = {name: (folder / name).read_bytes() for name in names}
    for part in ("pictures", "codes"):
        for path in sorted((folder / part).rglob("*")):
            if path.is_file():
                found[str(path.relative_to(folder))] = path.read_bytes()
    return found


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Forty prompts, of which one says nothing and one asks for a size that there is not."""
    rows = [{"id": f"r{number}", "prompt": f"draw a red {number}"} for number in range(40)]
    rows[7]["prompt"] = " "
    rows[21]["size"] = "7x7"
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_two_workers_give_what_one_process_gives(
    tmp_path: Path, source: Path, tiny_checkpoint: Path
) -> None:
    for name, words in (("here", []), ("there", ["--ray", "local", "--ray-workers", "2"])):
        done = subprocess.run(
            command(source, tmp_path / name, tiny_checkpoint, *words),
            env=environment(),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 1, done.stderr
        assert "38 of 40 rows answered, 2 failed" in done.stderr
    assert files_of(tmp_path / "here") == files_of(tmp_path / "there")


def test_a_killed_job_goes_on_and_may_change_to_one_process(
    tmp_path: Path, source: Path, tiny_checkpoint: Path
) -> None:
    folder = tmp_path / "job"
    words = command(source, folder, tiny_checkpoint, "--ray", "local", "--ray-packet", "4")
    process = subprocess.Popen(words, env=environment(), start_new_session=True)
    log = folder / "log.jsonl"
    end = time.monotonic() + 300
    while time.monotonic() < end and process.poll() is None:
        if log.exists() and log.read_bytes().count(b"\n") >= 6:
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 6 <= log.read_bytes().count(b"\n") < 40
    plain = command(source, folder, tiny_checkpoint)
    assert subprocess.run(plain, env=environment(), capture_output=True).returncode == 1
    other = command(source, tmp_path / "other", tiny_checkpoint)
    assert subprocess.run(other, env=environment(), capture_output=True).returncode == 1
    assert files_of(folder) == files_of(tmp_path / "other")


def test_a_cluster_that_is_not_there_is_told(
    tmp_path: Path, source: Path, tiny_checkpoint: Path
) -> None:
    words = command(source, tmp_path / "job", tiny_checkpoint, "--ray", "127.0.0.1:9")
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert "cannot connect to a Ray cluster at 127.0.0.1:9" in done.stderr
    assert "Traceback" not in done.stderr
