"""`mmgen batch run`: OpenAI batch files, answered by a model in this process or by a server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mmgen.errors import SettingsError

if TYPE_CHECKING:
    from mmgen.batch.posting import AbstractPoster

__all__ = ["run_file"]

URLS = ("/v1/chat/completions", "/v1/images/generations", "/v1/responses")


@click.command("run")
@click.argument("source", metavar="FILE")
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    metavar="JOB_DIR",
    help="Directory of the job.",
)
@click.option("--model", metavar="NAME|DIR", help="Model to use.  [default: mini]")
@click.option("--model-name", metavar="NAME", help="What FILE calls it.  [default: its name]")
@click.option("--device", default="cpu", show_default=True, help="Where the model runs.")
@click.option("--endpoint", metavar="URL", help="Ask this server instead, such as mmgen serve.")
@click.option(
    "--api-key",
    envvar="MMGEN_API_KEY",
    show_envvar=True,
    metavar="KEY",
    help="What the server must be sent.",
)
@click.option(
    "--concurrency",
    type=click.IntRange(1, 1024),
    default=64,
    show_default=True,
    help="Requests under way at once.",
)
@click.option(
    "--attempts",
    type=click.IntRange(min=1),
    default=4,
    show_default=True,
    help="Times that a request is sent when what went wrong may pass.",
)
@click.option("--retry-failed", is_flag=True, help="Send requests again that got no answer so far.")
@click.option("--dry-run", is_flag=True, help="Count and check; write nothing.")
@click.pass_context
def run_file(
    ctx: click.Context,
    source: str,
    output: Path,
    model: str | None,
    model_name: str | None,
    device: str,
    endpoint: str | None,
    api_key: str | None,
    concurrency: int,
    attempts: int,
    retry_failed: bool,
    dry_run: bool,
) -> None:
    """Answer FILE, an OpenAI batch file, and write OpenAI's output and error files.

    Every line has custom_id, method, url and body; bodies are taken as a server takes them.
    Answers go to JOB_DIR/output.jsonl, refusals and failures to JOB_DIR/errors.jsonl. Repeating
    the command continues a job that was stopped.
    """
    from mmgen.batch.job import JobDirectory
    from mmgen.batch.openai_files import BatchFileReader
    from mmgen.batch.openai_job import OpenAiJob, run_openai_job
    from mmgen.batch.places import expand_braces, matching
    from mmgen.batch.runner import RunnerConfig
    from mmgen.cli.batch_run import check_places, report, shown_progress, surveyed
    from mmgen.stopping import stop_signals

    if endpoint is not None and (model is not None or model_name is not None):
        raise SettingsError("--endpoint has a model of its own; leave out --model and --model-name")
    check_places(source, output)
    directory = JobDirectory(output)
    directory.check()
    places = [place for pattern in expand_braces(source) for place in matching(pattern)]
    reader = BatchFileReader(places, URLS)
    found = surveyed(reader, lambda row: None)
    if dry_run:
        click.echo(f"{found.num_rows:,} requests, {found.num_broken:,} that cannot be answered")
        ctx.exit(1 if found.num_broken else 0)
    with _opened_poster(
        endpoint, api_key, model, model_name, device=device, concurrency=concurrency
    ) as poster:
        job = OpenAiJob(
            directory=directory,
            reader=reader,
            survey=found,
            poster=poster,
            config=RunnerConfig(num_workers=concurrency, max_attempts=attempts),
        )
        with stop_signals() as stop, shown_progress(found.num_rows) as tell:
            summary = run_openai_job(job, stop=stop, on_progress=tell, retry_failed=retry_failed)
    ctx.exit(report(summary, output, was_stopped=stop.is_set(), results="output.jsonl"))


@contextmanager
def _opened_poster(
    endpoint: str | None,
    api_key: str | None,
    model: str | None,
    model_name: str | None,
    *,
    device: str,
    concurrency: int,
) -> Iterator[AbstractPoster]:
    """Give what answers: a server's address, or the server's application over a model here."""
    from mmgen.batch.posting import AppPoster, EndpointPoster

    if endpoint is not None:
        from mmgen.batch.endpoint import served_models

        server = EndpointPoster(endpoint, api_key=api_key)
        # Rows name their models; but a server that is not there shall not be found row by row.
        served_models(server)
        yield server
        return
    from mmgen.cli.serve import check_extra

    check_extra()
    from mmgen.checkpoint import DEFAULT_MODEL
    from mmgen.generate.service import Service
    from mmgen.generate.session import open_session
    from mmgen.serve.app import create_app
    from mmgen.serve.settings import Limits, ServerConfig

    limits = Limits()
    session = open_session(model, device=device)
    name = model_name or Path(model or DEFAULT_MODEL).resolve().name
    # Nobody else asks here, so as many turns as the file asks for at once have room.
    roomy = Limits(max_turns=concurrency * limits.max_n)
    with Service(session) as service:
        app = create_app(service, ServerConfig(model_name=name, limits=roomy))
        with AppPoster(app, f"{name} {session.checkpoint.fingerprint}") as poster:
            yield poster
