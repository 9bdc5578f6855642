"""A job put together: directory, log, outputs and runner, for one task over one input."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import Any, get_args

from mmgen.batch.backend import AbstractBackend
from mmgen.batch.committer import Committer
from mmgen.batch.crew import AbstractCrew
from mmgen.batch.job import Identity, JobDirectory, Part
from mmgen.batch.log import Record, ResultsLog
from mmgen.batch.outputs import Layout, Outputs
from mmgen.batch.page import write_page, write_sheet
from mmgen.batch.readers import AbstractReader
from mmgen.batch.results import Result
from mmgen.batch.rows import InputRow, Row
from mmgen.batch.runner import Runner, RunnerConfig
from mmgen.batch.statistics import statistics_of
from mmgen.batch.survey import Survey, checked
from mmgen.batch.tasks import AbstractTask
from mmgen.batch.writers import OutputForm, SidecarRules, open_writers
from mmgen.batch.writers.sidecar import check_sidecars
from mmgen.checkpoint import Checkpoint
from mmgen.document import DocumentCodec
from mmgen.errors import SettingsError
from mmgen.pictures import atomic_file

__all__ = ["BatchConfig", "Job", "Progress", "Summary", "model_content", "run_job"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchConfig:
    """What a job writes and how it runs."""

    forms: tuple[OutputForm, ...]
    """Outputs besides the JSON lines, which are always written."""
    rows_per_shard: int = 1000
    """Rows in one file of Parquet, WebDataset or codes."""
    part: Part = field(default_factory=Part)
    sidecars: SidecarRules = field(default_factory=SidecarRules)
    runner: RunnerConfig = field(default_factory=RunnerConfig)

    def __post_init__(self) -> None:
        unknown = set(self.forms) - set(get_args(OutputForm))
        if unknown:
            raise SettingsError(f"there is no output form {sorted(unknown)[0]!r}")
        if self.rows_per_shard < 1:
            raise SettingsError(f"rows per shard must be 1 or more, got {self.rows_per_shard}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a job is."""

    num_rows: int
    num_done: int
    """Rows with a record, those of earlier runs and failed ones included."""
    num_failed: int
    num_ids: int
    """Token ids taken and given in this run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """How a run ended."""

    num_rows: int
    num_done: int
    num_failed: int
    num_before: int
    """Rows that earlier runs had done."""
    num_ids: int
    seconds: float
    faults: dict[str, int]
    """Rows without an answer, by kind of error."""

    @property
    def is_complete(self) -> bool:
        return self.num_done == self.num_rows


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Job:
    """Everything a run needs."""

    directory: JobDirectory
    reader: AbstractReader
    survey: Survey
    check: Callable[[Row], object]
    """Raises what is wrong with a row."""
    task: AbstractTask
    backend: AbstractBackend
    config: BatchConfig
    checkpoint: Checkpoint | None = None
    """The model, where it is in this process; None where a server answers."""
    codec: DocumentCodec | None = None
    """Of the model."""
    crew: AbstractCrew | None = None
    """Who answers in place of the backend, which then says only what it is."""

    def __post_init__(self) -> None:
        if "codes" in self.config.forms and (self.checkpoint is None or self.codec is None):
            raise SettingsError(
                "training shards (codes) are made of the model's own ids, which no server gives; "
                "choose other outputs, or run the model here"
            )

    @property
    def rows(self) -> range:
        """The rows of this job: of an array's part, some of the input's."""
        return self.config.part.rows(self.survey.num_rows)

    @property
    def identity(self) -> Identity:
        """Everything that decides the results."""
        config = self.config
        rules = config.sidecars
        settings: dict[str, Any] = {**self.task.settings, "outputs": sorted(config.forms)}
        if set(config.forms) - {"files", "sidecar"}:
            settings["rows_per_shard"] = config.rows_per_shard
        if "sidecar" in config.forms:
            settings["captions"] = {
                "folder": None if rules.folder is None else str(rules.folder),
                "extension": rules.extension,
                "existing": rules.existing,
            }
        return Identity(
            task=self.task.name,
            source=self.survey.content(),
            settings=settings,
            model={
                **({} if self.checkpoint is None else model_content(self.checkpoint)),
                **self.backend.description,
            },
            part=f"{config.part.index}/{config.part.count}",
        )


def model_content(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return what identifies a model and its ways, as JSON values."""
    return {
        "fingerprint": checkpoint.fingerprint,
        "defaults": asdict(checkpoint.generation),
    }


def run_job(
    job: Job,
    *,
    stop: threading.Event | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    retry_failed: bool = False,
) -> Summary:
    """Begin a job, or go on with it; return how the run ended.

    Args:
        retry_failed: answer again the rows that have no answer so far.

    Raises:
        SettingsError: the directory holds another job.
        OutputError: something cannot be written.
    """
    directory, config, rows = job.directory, job.config, job.rows
    started = time.monotonic()
    if not directory.check(job.identity) and "sidecar" in config.forms:
        check_sidecars(job.reader.rows(), rows, directory.path, config.sidecars)
    with directory.locked(), ExitStack() as stack:
        directory.begin(job.identity)
        log = stack.enter_context(directory.open_log(rows))
        layout = Layout(directory.path, rows, keep_pictures="files" in config.forms)
        writers = open_writers(
            config.forms,
            directory.path,
            rows,
            config.rows_per_shard,
            job.task,
            vocabulary=None if job.checkpoint is None else job.checkpoint.vocabulary.fingerprint,
            config=job.identity.content(),
            sidecars=config.sidecars,
        )
        for writer in writers:
            stack.callback(writer.close)
        if retry_failed and log.num_failed:
            for writer in writers:
                writer.rewind(log.failed_rows[0], log)
            log.forget_failed()
        answering = job.crew or job.backend
        before, ids_before = log.num_done, answering.num_ids
        outputs = Outputs(directory.path, log, writers, rows)
        layout.remove_orphans(log, outputs.packed)
        codec = job.codec if "codes" in config.forms else None

        def write(row: Row, result: Result) -> Record:
            return layout.write(row.index, row.id, result, codec)

        def tell() -> None:
            if on_progress is not None:
                num_ids = answering.num_ids - ids_before
                on_progress(
                    Progress(
                        num_rows=len(rows),
                        num_done=log.num_done,
                        num_failed=log.num_failed,
                        num_ids=num_ids,
                    )
                )

        tell()
        committer = Committer(log, layout, outputs, on_commit=tell)
        open_rows = _open_rows(job, log)
        if job.crew is not None:
            job.crew.run(open_rows, committer, write, stop or threading.Event())
        else:
            Runner(
                open_rows,
                job.task,
                job.backend,
                committer,
                write=write,
                config=config.runner,
                stop=stop,
            ).run()
        summary = Summary(
            num_rows=len(rows),
            num_done=log.num_done,
            num_failed=log.num_failed,
            num_before=before,
            num_ids=answering.num_ids - ids_before,
            seconds=time.monotonic() - started,
            faults=log.fault_kinds,
        )
        _write_report(job, summary, log)
        return summary


def _open_rows(job: Job, log: ResultsLog) -> Iterator[InputRow]:
    """Yield the job's rows that have no record."""
    for row in checked(job.reader.rows(), job.check):
        if row.index >= job.rows.stop:
            return
        if row.index in job.rows and row.index not in log:
            yield row


def _write_report(job: Job, summary: Summary, log: ResultsLog) -> None:
    """Write what the job's results look like, as JSON, as a page and as a contact sheet."""
    folder, words = job.directory.path, job.task.words
    found = statistics_of(log.records, words)
    write_page(
        folder,
        f"mmgen batch {job.task.name}",
        found,
        log.records,
        words=words,
        num_rows=summary.num_rows,
    )
    if "files" in job.config.forms:
        write_sheet(folder, log.records(), words)
    content = {
        "is_complete": summary.is_complete,
        "rows": summary.num_rows,
        "answered": summary.num_done - summary.num_failed,
        "failed": summary.num_failed,
        "faults": summary.faults,
        "last_run": {
            "rows": summary.num_done - summary.num_before,
            "seconds": round(summary.seconds, 3),
            "rows_per_second": round(
                (summary.num_done - summary.num_before) / max(summary.seconds, 1e-9), 3
            ),
            "tokens": summary.num_ids,
        },
        "histograms": found.as_json()["histograms"],
        "values": found.as_json()["values"],
    }
    with atomic_file(folder / "report.json") as partial:
        partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
