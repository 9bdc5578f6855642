"""From a batch command to a finished run: checks, survey, model, job, progress and summary."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from mmgen.batch.assembly import BatchConfig, Job, run_job
from mmgen.batch.backend import SessionBackend
from mmgen.batch.job import JobDirectory, Part
from mmgen.batch.places import is_url
from mmgen.batch.readers import AbstractReader, FieldNames, keep_stdin, open_reader
from mmgen.batch.readers.lines import Meaning
from mmgen.batch.rows import Row
from mmgen.batch.runner import RunnerConfig
from mmgen.batch.survey import Survey, survey
from mmgen.batch.tasks import AbstractTask
from mmgen.batch.writers import SidecarRules
from mmgen.checkpoint import DEFAULT_MODEL
from mmgen.errors import SettingsError
from mmgen.generate.session import Session, open_session
from mmgen.train.stopping import stop_signals
from mmgen.visual_tokenizer import Parts

__all__ = ["Command", "run"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What a user asked for."""

    source: str
    names: FieldNames
    meaning: Meaning
    check: Callable[[Row], object]
    """Raises what is wrong with a row."""
    parts: Parts
    make_task: Callable[[Session, str], AbstractTask]
    forms: Sequence[str]
    sidecars: SidecarRules = field(default_factory=SidecarRules)
    options: dict[str, Any]
    """Those that all batch commands share."""


def run(command: Command) -> int:
    """Run a job and report; return the exit status: 0 when every row has its answer."""
    options = command.options
    output: Path = options["output"]
    part = Part.parse(options["shard"])
    config = BatchConfig(
        forms=tuple(dict.fromkeys(command.forms)),  # type: ignore[arg-type]
        rows_per_shard=options["rows_per_shard"],
        part=part,
        sidecars=command.sidecars,
        runner=RunnerConfig(num_workers=options["workers"], max_attempts=options["attempts"]),
    )
    directory = JobDirectory(part.folder(output))
    _check_places(command.source, output)
    directory.check()
    source = command.source
    if source == "-":
        if part.count > 1:
            raise SettingsError("standard input cannot be read by several jobs; use a file")
        source = keep_stdin(output)
    reader = open_reader(
        source,
        command.names,
        meaning=command.meaning,
        kind=options["kind"],
        split=options["split"],
    )
    found = _surveyed(reader, command.check)
    session = open_session(options["model"], parts=command.parts, device=options["device"])
    job = Job(
        directory=directory,
        reader=reader,
        survey=found,
        check=command.check,
        task=command.make_task(session, options["model"] or DEFAULT_MODEL),
        backend=SessionBackend(session, capacity=64),
        checkpoint=session.checkpoint,
        codec=session.codec,
        config=config,
    )
    with stop_signals() as stop:
        summary = run_job(job, stop=stop)
    click.echo(str(summary), err=True)
    if stop.is_set() and not summary.is_complete:
        return 130
    return 1 if summary.num_failed else 0


def _surveyed(reader: AbstractReader, check: Callable[[Row], object]) -> Survey:
    return survey(reader, check)


def _check_places(source: str, output: Path) -> None:
    """Refuse a job directory that is the input, holds it, or lies in it."""
    if source == "-" or is_url(source):
        return
    place, job = Path(source).resolve(), output.resolve()
    if place == job or place in job.parents:
        raise SettingsError(
            f"the job directory {output} lies in the input {source}; choose a place beside it"
        )
    if job in place.parents:
        raise SettingsError(
            f"the input {source} lies in the job directory {output}; choose another with -o"
        )
