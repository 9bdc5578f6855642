"""Rows that fail, pass at another attempt, are tried again later, or are left when a job stops."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mmgen.batch.assembly import Progress, run_job
from mmgen.batch.backend import SessionBackend
from mmgen.batch.results import Answer, More, Result
from mmgen.batch.rows import Row
from mmgen.batch.runner import RunnerConfig
from mmgen.batch.tasks import AbstractTask, ColumnKind
from mmgen.batch.writers import OutputForm, open_writers
from mmgen.errors import TransientError
from mmgen.generate.requests import TurnRequest
from tests.batch.conftest import MakeJob, contents, lines


class FlakyTask(AbstractTask):
    """Passes everything on to another task, but fails now and then in three places."""

    def __init__(self, inner: AbstractTask, num_failures: int, *, place: str) -> None:
        self._inner = inner
        self._failures: dict[str, int] = {}
        self._num_failures = num_failures
        self._place = place

    @property
    def name(self) -> str:
        return self._inner.name

    @property
    def settings(self) -> dict[str, Any]:
        return dict(self._inner.settings)

    @property
    def columns(self) -> dict[str, ColumnKind]:
        return dict(self._inner.columns)

    @property
    def words(self) -> str:
        return self._inner.words

    def requests(self, row: Row) -> Sequence[TurnRequest]:
        self._fail(row, "requests")
        return self._inner.requests(row)

    def finish(self, row: Row, answers: Sequence[Answer]) -> Result | More:
        self._fail(row, "finish")
        if self._place == "more" and len(answers) < 2:
            return More(tuple(self._inner.requests(row)))
        return self._inner.finish(row, answers[-1:])

    def _fail(self, row: Row, place: str) -> None:
        count = self._failures.get(row.id, 0)
        if place == self._place and row.index % 3 == 0 and count < self._num_failures:
            self._failures[row.id] = count + 1
            raise TransientError("the line is busy")


@pytest.mark.parametrize("place", ["requests", "finish", "more"])
def test_what_may_pass_is_tried_again(
    make_job: MakeJob, prompts: Path, tmp_path: Path, place: str
) -> None:
    run_job(make_job(prompts, forms=["files"], name="smooth"))
    job = make_job(prompts, forms=["files"])
    summary = run_job(replace(job, task=FlakyTask(job.task, 3, place=place)))
    assert summary.num_failed == 0
    assert contents(tmp_path / "job") == contents(tmp_path / "smooth")


def test_what_does_not_pass_is_recorded_and_can_be_tried_later(
    make_job: MakeJob, prompts: Path, tmp_path: Path
) -> None:
    forms = ["parquet", "webdataset", "codes"]
    run_job(make_job(prompts, forms=forms, rows_per_shard=6, name="smooth"))
    job = make_job(prompts, forms=forms, rows_per_shard=6)
    flaky = replace(job, task=FlakyTask(job.task, 5, place="requests"))
    summary = run_job(flaky)
    assert (summary.num_done, summary.num_failed) == (20, 7)
    assert summary.faults == {"TransientError": 7}
    errors = lines(tmp_path / "job" / "errors.jsonl")
    assert errors[0] == {
        "row": 0,
        "id": "0",
        "error": "TransientError",
        "reason": "the line is busy",
        "attempts": 4,
    }
    assert len(lines(tmp_path / "job" / "results.jsonl")) == 13
    assert run_job(make_job(prompts, forms=forms, rows_per_shard=6)).num_failed == 7
    again = make_job(prompts, forms=forms, rows_per_shard=6)
    summary = run_job(again, retry_failed=True)
    assert (summary.num_failed, summary.num_before, summary.faults) == (0, 13, {})
    assert contents(tmp_path / "job") == contents(tmp_path / "smooth")


def test_trying_again_may_itself_be_killed(
    make_job: MakeJob, prompts: Path, tmp_path: Path
) -> None:
    forms: list[OutputForm] = ["parquet", "webdataset", "codes"]
    job = make_job(prompts, forms=forms, rows_per_shard=6)
    run_job(replace(job, task=FlakyTask(job.task, 5, place="requests")))
    before = contents(tmp_path / "job")
    with job.directory.open_log(job.rows) as log:
        writers = open_writers(
            forms, tmp_path / "job", job.rows, 6, job.task, vocabulary="", config={}
        )
        for writer in writers:
            writer.rewind(log.failed_rows[0], log)
            writer.close()
    assert contents(tmp_path / "job") != before
    assert len(list((tmp_path / "job" / "spool").iterdir())) == 26
    run_job(make_job(prompts, forms=forms, rows_per_shard=6))
    assert contents(tmp_path / "job") == before


def test_stopping_finishes_what_is_in_flight(
    make_job: MakeJob, prompts: Path, tmp_path: Path
) -> None:
    run_job(make_job(prompts, forms=["files", "parquet"], name="smooth"))
    stop = threading.Event()

    def on_progress(progress: Progress) -> None:
        if progress.num_done > 2:
            stop.set()

    config = RunnerConfig(num_workers=1)
    job = make_job(prompts, forms=["files", "parquet"], runner=config)
    assert isinstance(job.backend, SessionBackend)
    backend = SessionBackend(job.backend.session, capacity=3, description=job.backend.description)
    summary = run_job(replace(job, backend=backend), stop=stop, on_progress=on_progress)
    assert 2 < summary.num_done < 20 and not summary.is_complete
    assert backend.num_unfinished == 0
    assert run_job(make_job(prompts, forms=["files", "parquet"])).is_complete
    assert contents(tmp_path / "job") == contents(tmp_path / "smooth")
