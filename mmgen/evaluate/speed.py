"""How fast a tokenizer is, and how long a command takes from a standing start.

A start is measured from outside, in a process of its own, since that is what a user waits for.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from mmgen.errors import EngineError
from mmgen.evaluate.progress import Progress
from mmgen.testing import Speed, draw_picture
from mmgen.testing.report import Operation
from mmgen.visual_tokenizer import AbstractVisualTokenizer

__all__ = ["Start", "measure_starts", "start_command", "tokenizer_speeds"]

BATCH_SIZES = (1, 64)
MIB = 1024 * 1024
# A new process inherits the peak of the one that started it, so a small one stands in between.
WATCHER = """\
import json, os, subprocess, sys, time
start = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
process.returncode = os.waitstatus_to_exitcode(status)
seconds = time.perf_counter() - start
print(json.dumps([seconds, process.returncode, usage.ru_maxrss]))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """One command, run several times in fresh processes."""

    name: str
    """What the command does."""
    num_runs: int
    """How often it ran."""
    seconds: float
    """Median wall time from start to end."""
    peak_mib: float
    """Median of the most memory it held, in MiB."""


def tokenizer_speeds(
    tokenizer: AbstractVisualTokenizer,
    *,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    seconds: float = 2.0,
    progress: Progress,
) -> list[Speed]:
    """Return pictures per second of encoding and decoding, for pictures of the default size."""
    size = tokenizer.spec.pixels.size_of(tokenizer.spec.default_layout)
    pictures = [draw_picture(size, seed=seed) for seed in range(max(batch_sizes))]
    codes = tokenizer.encode(pictures)
    seed = 0 if tokenizer.spec.stochastic else None
    works: dict[Operation, Callable[[int], object]] = {
        "encode": lambda num: tokenizer.encode(pictures[:num]),
        "decode": lambda num: tokenizer.decode(codes[:num], seed=seed),
    }
    tasks = [(operation, num) for operation in works for num in batch_sizes]
    return [
        Speed(
            operation=operation,
            batch_size=num,
            images_per_second=num / _median_seconds(works[operation], num, seconds),
        )
        for operation, num in progress(tasks, "timing the tokenizer")
    ]


def measure_starts(model: str | None, *, num_runs: int, progress: Progress) -> list[Start]:
    """Measure the wait for help and the wait for a first picture and a first caption."""
    chosen = [] if model is None else ["--model", model]
    with tempfile.TemporaryDirectory() as folder:
        picture = str(Path(folder) / "picture.png")
        commands = {
            "help": ["--help"],
            "first picture": ["generate", "a red apple", "-o", picture, *chosen],
            "first caption": ["caption", picture, *chosen],
        }
        return [
            start_command(name, [sys.executable, "-m", "mmgen", *words], num_runs=num_runs)
            for name, words in progress(list(commands.items()), "timing starts")
        ]


def start_command(name: str, command: Sequence[str], *, num_runs: int) -> Start:
    """Run a command again and again, each time in a new process."""
    runs = [_run_once(command) for _ in range(num_runs)]
    return Start(
        name=name,
        num_runs=num_runs,
        seconds=median(seconds for seconds, _ in runs),
        peak_mib=median(peak for _, peak in runs),
    )


def _run_once(command: Sequence[str]) -> tuple[float, float]:
    """Return wall seconds and the peak of resident memory in MiB."""
    watcher = [sys.executable, "-I", "-S", "-c", WATCHER, *command]
    done = subprocess.run(watcher, capture_output=True, text=True, check=True)
    seconds, status, peak = json.loads(done.stdout)
    if status != 0:
        said = done.stderr.strip().splitlines()
        raise EngineError(f"{' '.join(command)} ended with {status}: {said[-1] if said else '-'}")
    return seconds, peak * (1 if sys.platform == "darwin" else 1024) / MIB


def _median_seconds(work: Callable[[int], object], num: int, budget: float) -> float:
    """Time calls after a first one, as many as fit the budget and three at least."""
    work(num)
    times: list[float] = []
    while len(times) < 3 or sum(times) < budget:
        start = time.perf_counter()
        work(num)
        times.append(time.perf_counter() - start)
    return median(times)
