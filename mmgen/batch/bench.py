"""What the pipeline costs: rows a second of jobs beside the engine alone and a plain loop.

All are measured in turns on the same rows, so that whatever else the machine does falls on all of
them; only their ratios say something.
"""

from __future__ import annotations

import json
import multiprocessing
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from statistics import median
from typing import Literal, TypeAlias

import torch

from mmgen.batch.assembly import BatchConfig, Job, run_job
from mmgen.batch.backend import SessionBackend
from mmgen.batch.job import JobDirectory, Part
from mmgen.batch.opening import open_backend
from mmgen.batch.readers import open_reader
from mmgen.batch.survey import survey
from mmgen.batch.tasks.caption import CaptionSettings, CaptionTask
from mmgen.batch.tasks.generate import GenerateSettings, GenerateTask
from mmgen.errors import EngineError, SettingsError
from mmgen.generate.events import ImageFinished, TurnFailed, TurnFinished
from mmgen.generate.requests import CaptionRequest, DrawRequest, TurnRequest
from mmgen.generate.session import Session
from mmgen.pictures import open_picture, save_png, to_picture

__all__ = ["BatchBench", "BatchBenchConfig", "Direction", "measure_batch"]

Direction: TypeAlias = Literal["generate", "caption"]
_COLOURS = ("red", "green", "blue", "yellow", "black", "white", "orange", "pink")
_THINGS = ("circle", "square", "heart", "star", "flower", "car", "house", "bird", "fish")


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchBenchConfig:
    """What is measured."""

    num_rows: int = 128
    """Rows of a job."""
    num_single: int = 16
    """Rows that the loop handles, one after another."""
    engine_rows: tuple[int, ...] = (32, 64, 128)
    """Batch sizes among which the engine's best is looked for."""
    repeats: int = 3
    """Measurements of each, after one that is not counted."""

    def __post_init__(self) -> None:
        counts = (self.num_rows, self.num_single, self.repeats, *self.engine_rows)
        if not self.engine_rows or min(counts) < 1 or min(self.engine_rows) < 2:
            raise SettingsError(
                "rows, single rows and repeats must be 1 or more and engine rows 2 or more, got "
                f"{self.num_rows}, {self.num_single}, {self.repeats} and {self.engine_rows}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchBench:
    """Medians for one direction."""

    direction: Direction
    num_rows: int
    rows_per_second: float
    """Of a job, its reading and writing included."""
    peak_rows_per_second: float
    """Of the engine alone, with everything in memory, at its best batch size."""
    best_engine_rows: int
    peak_share: float
    """Median over repeats of the job's rate over the peak next to it."""
    loop_rows_per_second: float
    """Of a loop that reads, asks and writes one row at a time."""
    loop_ratio: float
    """Median over repeats of how many times faster the job was than the loop next to it."""
    halves_ratio: float
    """How many times faster two processes with half the threads each were, in sum, than one."""


def measure_batch(
    direction: Direction,
    model: Path | str | None = None,
    config: BatchBenchConfig | None = None,
    *,
    on_step: Callable[[str], None] | None = None,
) -> BatchBench:
    """Measure one direction with a checkpoint on this machine's CPU.

    Args:
        model: a checkpoint directory or the name of an installed model; without it, the default.
        on_step: told what is about to be measured.
    """
    config = config or BatchBenchConfig()
    tell = on_step or (lambda _: None)
    with tempfile.TemporaryDirectory() as folder:
        bench = _Bench(direction, model, config, Path(folder))
        best = bench.best_engine_rows(tell)
        peaks, jobs, loops = [], [], []
        for number in range(config.repeats + 1):
            tell(f"round {number} of {config.repeats}: engine, job, loop")
            peaks.append(bench.engine_rate(best))
            jobs.append(bench.job_rate())
            loops.append(bench.loop_rate())
        tell("two processes")
        return BatchBench(
            direction=direction,
            num_rows=config.num_rows,
            rows_per_second=median(jobs[1:]),
            peak_rows_per_second=median(peaks[1:]),
            best_engine_rows=best,
            peak_share=median(a / b for a, b in zip(jobs[1:], peaks[1:], strict=True)),
            loop_rows_per_second=median(loops[1:]),
            loop_ratio=median(a / b for a, b in zip(jobs[1:], loops[1:], strict=True)),
            halves_ratio=bench.halves_ratio(),
        )


class _Bench:
    """Rows on disk and in memory, and the ways to answer them."""

    def __init__(
        self,
        direction: Direction,
        model: Path | str | None,
        config: BatchBenchConfig,
        folder: Path,
    ) -> None:
        self._direction = direction
        self._model = model
        self._config = config
        self._folder = folder
        self._num_jobs = 0
        self._backend = _open(direction, model)
        self._prompts = [
            f"a {_COLOURS[n % len(_COLOURS)]} {_THINGS[n % len(_THINGS)]}"
            for n in range(config.num_rows)
        ]
        self.source = folder / "prompts.txt"
        self.source.write_text("".join(f"{prompt}\n" for prompt in self._prompts))
        if direction == "caption":
            self.source = folder / "pictures"
            self._draw_pictures()

    def best_engine_rows(self, tell: Callable[[str], None]) -> int:
        """Return the batch size at which the engine is fastest."""
        rates = {}
        for rows in self._config.engine_rows:
            tell(f"engine with {rows} rows")
            self.engine_rate(rows)
            rates[rows] = self.engine_rate(rows)
        return max(rates, key=lambda rows: rates[rows])

    def engine_rate(self, num_rows: int) -> float:
        """Return rows per second of a session with everything in memory."""
        session = _open(self._direction, self._model, num_rows).session
        requests: list[TurnRequest]
        if self._direction == "generate":
            requests = [DrawRequest(prompt=text, seed=n) for n, text in enumerate(self._prompts)]
        else:
            pictures = [open_picture(path) for path in sorted(self.source.iterdir())]
            requests = [CaptionRequest(picture=picture) for picture in pictures]
        return len(requests) / _timed(partial(_answer_all, session, requests))

    def job_rate(self) -> float:
        """Return rows per second of a whole job."""
        self._num_jobs += 1
        place = self._folder / f"job-{self._num_jobs}"
        job = _job(self._direction, self.source, place, self._backend, Part())
        return self._config.num_rows / _timed(partial(run_job, job))

    def loop_rate(self) -> float:
        """Return rows per second of what one would write without a pipeline."""
        place = self._folder / "loop"
        place.mkdir(exist_ok=True)
        count = min(self._config.num_single, self._config.num_rows)
        handle = self._draw_one if self._direction == "generate" else self._look_at_one

        def loop() -> None:
            with (place / "results.jsonl").open("w") as file:
                for number in range(count):
                    file.write(json.dumps(handle(number, place)) + "\n")

        return count / _timed(loop)

    def halves_ratio(self) -> float:
        """Return how much faster two processes are together than one with all threads."""
        threads = torch.get_num_threads()
        alone = self._processes_rate([(Part(), threads)])
        both = self._processes_rate([(Part(n, 2), max(1, threads // 2)) for n in range(2)])
        return both / alone

    def _processes_rate(self, parts: Sequence[tuple[Part, int]]) -> float:
        self._num_jobs += 1
        context = multiprocessing.get_context("spawn")
        barrier = context.Barrier(len(parts) + 1)
        place = self._folder / f"job-{self._num_jobs}"
        children = [
            context.Process(
                target=_run_part,
                args=(self._direction, self._model, self.source, place, part, threads, barrier),
            )
            for part, threads in parts
        ]
        for child in children:
            child.start()
        try:
            barrier.wait(timeout=600)
        except threading.BrokenBarrierError:
            raise EngineError("a process of the measurement ended early") from None
        seconds = _timed(partial(_join, children))
        if any(child.exitcode for child in children):
            raise EngineError("a process of the measurement failed")
        return self._config.num_rows / seconds

    def _draw_pictures(self) -> None:
        """Draw what is to be captioned, with the model itself."""
        self.source.mkdir()
        session = _open("generate", self._model).session
        requests = [DrawRequest(prompt=text, seed=n) for n, text in enumerate(self._prompts)]
        for event in session.run(requests):
            if isinstance(event, ImageFinished):
                save_png(to_picture(event.picture), self.source / f"{event.index:06d}.png")

    def _draw_one(self, number: int, place: Path) -> dict[str, object]:
        (image,) = (
            event
            for event in self._backend.session.draw(self._prompts[number], seed=number)
            if isinstance(event, ImageFinished)
        )
        path = place / f"{number}.png"
        save_png(to_picture(image.picture), path)
        return {"prompt": self._prompts[number], "picture": str(path)}

    def _look_at_one(self, number: int, place: Path) -> dict[str, object]:
        path = self.source / f"{number:06d}.png"
        (turn,) = (
            event
            for event in self._backend.session.caption(path)
            if isinstance(event, TurnFinished)
        )
        return {"picture": str(path), "caption": turn.text}


def _open(
    direction: Direction, model: Path | str | None, num_rows: int | None = None
) -> SessionBackend:
    is_drawing = direction == "generate"
    return open_backend(
        model,
        parts="decoder" if is_drawing else "encoder",
        rows_per_request=2 if is_drawing else 1,
        num_rows=num_rows,
    )


def _job(
    direction: Direction, source: Path, place: Path, backend: SessionBackend, part: Part
) -> Job:
    checkpoint, codec = backend.session.checkpoint, backend.session.codec
    drawing, looking = GenerateSettings(), CaptionSettings()
    is_drawing = direction == "generate"
    check = drawing.request if is_drawing else looking.check
    reader = open_reader(str(source), meaning="prompt" if is_drawing else "picture")
    return Job(
        directory=JobDirectory(part.folder(place)),
        reader=reader,
        survey=survey(reader, check),
        check=check,
        task=GenerateTask(drawing, checkpoint, model="bench")
        if is_drawing
        else CaptionTask(looking, checkpoint, codec),
        backend=backend,
        checkpoint=checkpoint,
        codec=codec,
        config=BatchConfig(forms=("files",) if is_drawing else ("sidecar",), part=part),
    )


def _run_part(
    direction: Direction,
    model: Path | str | None,
    source: Path,
    place: Path,
    part: Part,
    num_threads: int,
    barrier: threading.Barrier,
) -> None:
    """Run a part of a job in a process of its own, once all are ready."""
    torch.set_num_threads(num_threads)
    job = _job(direction, source, place, _open(direction, model), part)
    barrier.wait(timeout=600)
    run_job(job)


def _join(children: Sequence[BaseProcess]) -> None:
    for child in children:
        child.join()


def _answer_all(session: Session, requests: Sequence[TurnRequest]) -> None:
    for event in session.run(requests):
        if isinstance(event, TurnFailed):
            raise event.error


def _timed(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started
