"""A job over an OpenAI batch file: the log, and its two output files, over the same runner."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from mmgen.batch.assembly import Progress, Summary
from mmgen.batch.backend import NoEngine
from mmgen.batch.committer import Committer
from mmgen.batch.job import Identity, JobDirectory
from mmgen.batch.log import Record, ResultsLog
from mmgen.batch.openai_files import error_line, is_refusal, output_line, row_of_line
from mmgen.batch.outputs import Layout, Outputs
from mmgen.batch.posting import AbstractPoster
from mmgen.batch.readers import AbstractReader
from mmgen.batch.results import Result
from mmgen.batch.rows import InputRow, Row
from mmgen.batch.runner import Runner, RunnerConfig
from mmgen.batch.survey import Survey
from mmgen.batch.tasks.post import PostTask
from mmgen.batch.writers import AbstractWriter
from mmgen.batch.writers.jsonl import JsonLinesWriter

__all__ = ["OpenAiJob", "run_openai_job"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAiJob:
    """Everything a run needs."""

    directory: JobDirectory
    reader: AbstractReader
    survey: Survey
    poster: AbstractPoster
    config: RunnerConfig

    @property
    def rows(self) -> range:
        """All rows of the input."""
        return range(self.survey.num_rows)


def run_openai_job(
    job: OpenAiJob,
    *,
    stop: threading.Event | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    retry_failed: bool = False,
) -> Summary:
    """Begin a job, or go on with it; return how the run ended.

    Args:
        retry_failed: ask again what got no answer so far; refusals are answers.

    Raises:
        SettingsError: the directory holds another job.
        OutputError: something cannot be written.
    """
    started = time.monotonic()
    directory, rows = job.directory, job.rows
    task = PostTask(job.poster)
    identity = Identity(
        task=task.name, source=job.survey.content(), settings=task.settings, model={}
    )
    directory.check(identity)
    with directory.locked():
        directory.begin(identity)
        with directory.open_log(rows) as log, ExitStack() as stack:
            layout = Layout(directory.path, rows, keep_pictures=False)
            writers = _writers(directory.path, rows)
            for writer in writers:
                stack.callback(writer.close)
            if retry_failed and log.num_failed:
                for writer in writers:
                    writer.rewind(log.failed_rows[0], log)
                log.forget_failed()
            before = log.num_done

            def tell() -> None:
                if on_progress is not None:
                    on_progress(
                        Progress(
                            num_rows=len(rows),
                            num_done=log.num_done,
                            num_failed=log.num_failed,
                            num_ids=0,
                        )
                    )

            def write(row: Row, result: Result) -> Record:
                return Record(row=row.index, id=row.id, fields=result.fields)

            outputs = Outputs(directory.path, log, writers, rows)
            runner = Runner(
                _open_rows(job.reader, log),
                task,
                NoEngine(),
                Committer(log, layout, outputs, on_commit=tell),
                write=write,
                config=job.config,
                stop=stop,
            )
            tell()
            runner.run()
            refused = sum(map(is_refusal, log.records()))
            faults = log.fault_kinds | ({"refused": refused} if refused else {})
            return Summary(
                num_rows=len(rows),
                num_done=log.num_done,
                num_failed=log.num_failed + refused,
                num_before=before,
                num_ids=0,
                seconds=time.monotonic() - started,
                faults=faults,
            )


def _writers(folder: Path, rows: range) -> list[AbstractWriter]:
    return [
        JsonLinesWriter(folder / "output.jsonl", rows.start, output_line, row_of_line),
        JsonLinesWriter(folder / "errors.jsonl", rows.start, error_line, row_of_line),
    ]


def _open_rows(reader: AbstractReader, log: ResultsLog) -> Iterator[InputRow]:
    for row in reader.rows():
        if row.index not in log:
            yield row
