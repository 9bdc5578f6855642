"""From a batch command to a finished run: checks, survey, model, job, progress and summary."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import click

from mmgen.batch.assembly import BatchConfig, Job, Progress, Summary, run_job
from mmgen.batch.backend import AbstractBackend, NoEngine
from mmgen.batch.endpoint import Endpoint
from mmgen.batch.estimate import Estimate, estimate
from mmgen.batch.job import JobDirectory, Part
from mmgen.batch.opening import open_backend
from mmgen.batch.places import is_url
from mmgen.batch.ray_crew import RayCrew, open_crew
from mmgen.batch.readers import AbstractReader, FieldNames, keep_stdin, open_reader
from mmgen.batch.readers.lines import Meaning
from mmgen.batch.rows import Row
from mmgen.batch.runner import RunnerConfig
from mmgen.batch.survey import Survey, survey
from mmgen.batch.tasks import AbstractTask
from mmgen.batch.tasks.endpoint import AbstractEndpointTask
from mmgen.batch.writers import SidecarRules
from mmgen.checkpoint import DEFAULT_MODEL
from mmgen.cli.batch_endpoint import open_endpoint
from mmgen.cli.lines import printable
from mmgen.errors import SettingsError
from mmgen.generate.session import Session
from mmgen.stopping import stop_signals
from mmgen.visual_tokenizer import Parts

__all__ = ["Command", "check_places", "report", "run", "shown_progress", "surveyed"]

_SECONDS_BETWEEN_LINES = 10.0


def _as_it_is(reader: AbstractReader) -> AbstractReader:
    return reader


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
    make_endpoint_task: Callable[[Endpoint], AbstractEndpointTask]
    rows_per_request: int
    """Rows of the engine that one request takes."""
    forms: Sequence[str]
    sidecars: SidecarRules = field(default_factory=SidecarRules)
    adapt: Callable[[AbstractReader], AbstractReader] = _as_it_is
    """Leaves rows out, or makes several of one."""
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
        runner=RunnerConfig(
            # A request to a server waits in a thread, from reading its picture to writing.
            num_workers=options["workers" if options["endpoint"] is None else "concurrency"],
            max_attempts=options["attempts"],
        ),
    )
    directory = JobDirectory(part.folder(output))
    check_places(command.source, output)
    directory.check()
    with _kept_input(command, output, part) as source:
        return _run(command, directory, source, config)


def _run(command: Command, directory: JobDirectory, source: str, config: BatchConfig) -> int:
    options = command.options
    endpoint = None if options["endpoint"] is None else open_endpoint(options)
    served = None if endpoint is None else command.make_endpoint_task(endpoint)
    check = command.check if served is None else served.check
    reader = open_reader(
        source,
        command.names,
        meaning=command.meaning,
        kind=options["kind"],
        split=options["split"],
    )
    reader = command.adapt(reader)
    found = surveyed(reader, check)
    if not options["dry_run"]:
        directory.make()
    elif served is not None:
        click.echo(f"rows:      {found.num_rows:,}\nunusable:  {found.num_broken:,}")
        click.echo("(nothing was asked of the server but what it serves)")
        return 1 if found.num_broken else 0
    if served is not None and endpoint is not None:
        job = Job(
            directory=directory,
            reader=reader,
            survey=found,
            check=check,
            task=served,
            backend=NoEngine(endpoint.description, lambda: endpoint.num_ids),
            config=config,
        )
    else:
        job = _job_here(command, directory, reader, found, config)
    if options["dry_run"]:
        _show_estimate(estimate(job))
        return 1 if found.num_broken else 0
    with ExitStack() as stack:
        if options["ray"] is not None:
            job = replace(job, crew=stack.enter_context(_opened_crew(command, config)))
        stop = stack.enter_context(stop_signals())
        tell = stack.enter_context(shown_progress(len(job.rows)))
        summary = run_job(job, stop=stop, on_progress=tell, retry_failed=options["retry_failed"])
    return report(summary, directory.path, was_stopped=stop.is_set())


def _job_here(
    command: Command,
    directory: JobDirectory,
    reader: AbstractReader,
    found: Survey,
    config: BatchConfig,
) -> Job:
    """Return a job that a model in this process answers."""
    options = command.options
    backend = open_backend(
        options["model"],
        parts=command.parts,
        rows_per_request=command.rows_per_request,
        device=options["device"],
        num_rows=options["engine_rows"],
        engine=options["engine"],
    )
    session = backend.session
    return Job(
        directory=directory,
        reader=reader,
        survey=found,
        check=command.check,
        task=command.make_task(session, options["model"] or DEFAULT_MODEL),
        backend=backend,
        checkpoint=session.checkpoint,
        codec=session.codec,
        config=config,
    )


def _opened_crew(command: Command, config: BatchConfig) -> AbstractContextManager[RayCrew]:
    """Return a crew on a Ray cluster, whose workers open the model where they are."""
    options = command.options
    model = options["model"]
    if model is not None and Path(model).is_dir():
        model = str(Path(model).resolve())
    make_task, parts, rows = command.make_task, command.parts, command.rows_per_request
    device, num_rows, engine = options["device"], options["engine_rows"], options["engine"]

    def make() -> tuple[AbstractTask, AbstractBackend]:
        backend = open_backend(
            model,
            parts=parts,
            rows_per_request=rows,
            device=device,
            num_rows=num_rows,
            engine=engine,
        )
        return make_task(backend.session, model or DEFAULT_MODEL), backend

    return open_crew(
        make,
        address=options["ray"],
        num_workers=options["ray_workers"],
        rows_per_packet=options["ray_packet"],
        num_gpus=0 if device == "cpu" else 1,
        config=config.runner,
    )


@contextmanager
def _kept_input(command: Command, output: Path, part: Part) -> Iterator[str]:
    """Give the input; what comes from standard input is kept in the job directory."""
    if command.source != "-":
        yield command.source
        return
    if part.count > 1:
        raise SettingsError("standard input cannot be read by several jobs; use a file")
    if not command.options["dry_run"]:
        yield keep_stdin(output)
        return
    with tempfile.TemporaryDirectory() as folder:
        yield keep_stdin(Path(folder))


def check_places(source: str, output: Path) -> None:
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


def surveyed(reader: AbstractReader, check: Callable[[Row], object]) -> Survey:
    """Look at the whole input, and say what of it cannot be used."""
    found = survey(reader, check)
    if found.num_broken == found.num_rows:
        _, reason = found.examples[0]
        raise SettingsError(
            f"none of the {found.num_rows:,} rows of {reader.places[0]} can be used; the first: "
            f"{printable(reason)}"
        )
    if found.num_broken:
        click.echo(
            f"{found.num_broken:,} of {found.num_rows:,} rows cannot be used, such as:", err=True
        )
        for id_, reason in found.examples:
            click.echo(f"  {printable(id_)}: {printable(reason)}", err=True)
    return found


def _show_estimate(found: Estimate) -> None:
    lines = [
        f"rows:      {found.num_rows:,}",
        f"unusable:  {found.num_broken:,}",
        f"tokens:    about {found.tokens:,}",
        f"time:      about {_duration(found.seconds)}",
    ]
    if found.picture_bytes:
        lines.append(f"pictures:  about {found.picture_bytes / 1e6:,.1f} MB")
    lines.append(f"(from {found.num_tried} rows that were answered and not kept)")
    if found.num_failed:
        lines.append(f"{found.num_failed} of these failed")
    click.echo("\n".join(lines))


@contextmanager
def shown_progress(num_rows: int) -> Iterator[Callable[[Progress], None]]:
    """Give a bar on a terminal, a line now and then anywhere else; both on standard error."""
    started = time.monotonic()
    first: list[Progress] = []

    def described(progress: Progress) -> str:
        seconds = max(time.monotonic() - started, 1e-9)
        rate = (progress.num_done - first[0].num_done) / seconds
        left = (progress.num_rows - progress.num_done) / rate if rate else 0.0
        parts = [f"{progress.num_failed:,} failed", f"{rate:,.1f} rows/s"]
        parts.append(f"{progress.num_ids / seconds:,.0f} tokens/s")
        return ", ".join([*parts, f"{_duration(left)} left"] if rate else parts)

    if not sys.stderr.isatty():
        last = [started]

        def tell(progress: Progress) -> None:
            first.append(progress) if not first else None
            if time.monotonic() - last[0] >= _SECONDS_BETWEEN_LINES:
                last[0] = time.monotonic()
                done = f"{progress.num_done:,} of {progress.num_rows:,} rows"
                click.echo(f"{done}, {described(progress)}", err=True)

        yield tell
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Bar(
        *columns,
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    ) as bar:
        task = bar.add_task("", total=num_rows)

        def show(progress: Progress) -> None:
            first.append(progress) if not first else None
            bar.update(task, completed=progress.num_done, description=described(progress))

        yield show


def report(
    summary: Summary, folder: Path, *, was_stopped: bool, results: str = "results.jsonl"
) -> int:
    """Say how a run ended and where its results are; return the exit status."""
    done = summary.num_done - summary.num_before
    click.echo(
        f"{summary.num_done - summary.num_failed:,} of {summary.num_rows:,} rows answered, "
        f"{summary.num_failed:,} failed; {done:,} in this run, in {_duration(summary.seconds)}",
        err=True,
    )
    if summary.num_failed:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in summary.faults.items())
        click.echo(f"reasons are in {folder / 'errors.jsonl'} ({kinds})", err=True)
    if not summary.is_complete:
        how = "stopped" if was_stopped else "ended early"
        click.echo(f"{how}; repeat the command to continue", err=True)
        return 130
    click.echo(click.format_filename(folder / results))
    return 1 if summary.num_failed else 0


def _duration(seconds: float) -> str:
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {whole % 60:02d} s" if minutes else f"{seconds:.1f} s"
