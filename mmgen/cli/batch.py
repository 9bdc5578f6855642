"""`mmgen batch`: captions and pictures for whole files of rows, in a directory per job.

Everything that can be wrong with the input and the settings is found before the model is loaded.
Repeating a command continues its job.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from mmgen.cli.batch_controls import (
    caption_controls,
    caption_options,
    expanding,
    filtering,
    generate_options,
)
from mmgen.cli.batch_endpoint import check_endpoint_options, endpoint_options
from mmgen.cli.batch_openai import run_file
from mmgen.cli.engines import engine_option
from mmgen.errors import SettingsError

__all__ = ["batch"]

Command = TypeVar("Command", bound=Callable[..., Any])

KINDS = (
    "folder", "pictures", "txt", "csv", "tsv", "json", "jsonl", "parquet", "webdataset", "datasets"
)  # fmt: skip


@click.group()
def batch() -> None:
    """Caption or draw many, and never lose a line.

    A job has a directory of its own. Repeating its command continues it, whatever stopped it;
    every row is answered once.
    """


def _job_options(command: Command) -> Command:
    options = [
        click.option(
            "-o",
            "--output",
            required=True,
            type=click.Path(path_type=Path),
            metavar="JOB_DIR",
            help="Directory of the job.",
        ),
        click.option("--kind", type=click.Choice(KINDS), help="Form of INPUT; else from its name."),
        click.option("--id-field", default="id", show_default=True, help="Field of the id."),
        click.option("--split", help="Part of a data set that was saved on disk."),
        click.option("--seed", type=int, default=0, show_default=True, help="Seed of the job."),
        click.option("--temperature", type=float, help="Spread of the choice; 0 for none."),
        click.option("--top-k", type=int, help="Choose among the K best only."),
        click.option("--top-p", type=float, help="Choose among the best of this probability."),
        click.option(
            "--model",
            metavar="NAME|DIR",
            help="Model to use, or one of the server's.  [default: mini, or the server's only one]",
        ),
        click.option("--tokenizer", metavar="NAME", help="Visual tokenizer of the model to use."),
        click.option(
            "--rows-per-shard",
            type=int,
            default=1000,
            show_default=True,
            help="Rows in one file of Parquet, WebDataset or codes.",
        ),
        click.option(
            "--shard",
            metavar="I/N",
            default="0/1",
            help="Do one of N equal parts; each has a directory of its own in JOB_DIR.",
        ),
        engine_option,
        click.option(
            "--ray",
            metavar="ADDRESS",
            help="Answer on a Ray cluster: auto, local, or where its head is.",
        ),
        click.option(
            "--ray-workers", type=int, default=2, show_default=True, help="Models on the cluster."
        ),
        click.option(
            "--ray-packet",
            type=int,
            default=128,
            show_default=True,
            help="Rows that a worker is sent at a time.",
        ),
        endpoint_options,
        click.option("--engine-rows", type=int, help="Rows of the engine.  [default: by memory]"),
        click.option(
            "--workers",
            type=int,
            default=2,
            show_default=True,
            help="Threads for files, beside the engine.",
        ),
        click.option(
            "--attempts",
            type=int,
            default=4,
            show_default=True,
            help="Times that a row is tried when what went wrong may pass.",
        ),
        click.option(
            "--retry-failed", is_flag=True, help="Try rows again that have no answer so far."
        ),
        click.option("--dry-run", is_flag=True, help="Count, check and estimate; write nothing."),
        click.option("--device", default="cpu", show_default=True, help="Where the model runs."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def _forms_option(
    default: tuple[str, ...], choices: tuple[str, ...]
) -> Callable[[Command], Command]:
    shown = ", ".join(default) or "none"
    return click.option(
        "--to",
        "forms",
        multiple=True,
        type=click.Choice(choices),
        help=f"Output besides results.jsonl; may be repeated.  [default: {shown}]",
    )


@batch.command()
@click.argument("source", metavar="INPUT")
@_forms_option(("files",), ("files", "parquet", "webdataset", "codes"))
@click.option("--prompt-field", default="prompt", show_default=True, help="Field of the prompt.")
@click.option("--guidance", type=float, help="How strongly prompts count; 1 is neutral.")
@click.option("--size", metavar="WxH", help="Size in pixels, among those of the model.")
@click.option(
    "--format",
    "picture_format",
    type=click.Choice(["png", "webp", "jpeg"]),
    default="png",
    show_default=True,
    help="Format of pictures.",
)
@click.option("--quality", type=int, help="Of JPEG, or of WebP with loss: 1 to 100.")
@generate_options
@_job_options
@click.pass_context
def generate(
    ctx: click.Context,
    /,
    source: str,
    forms: tuple[str, ...],
    prompt_field: str,
    guidance: float | None,
    size: str | None,
    picture_format: str,
    quality: int | None,
    **job: Any,
) -> None:
    """Draw a picture for every row of INPUT.

    INPUT is a file of prompts: text, CSV, TSV, JSON, JSON lines, Parquet, WebDataset or a data set
    saved on disk; a URL; a pattern; or - for standard input. Rows may have an id and their own
    seed, size, guidance, negative, n, temperature, top_k, top_p and tokenizer.
    """
    from mmgen.batch.readers import FieldNames
    from mmgen.batch.tasks.endpoint_generate import EndpointGenerateTask, check_served_drawings
    from mmgen.batch.tasks.generate import GenerateSettings, GenerateTask
    from mmgen.batch.tasks.sampling import SamplingSettings
    from mmgen.cli.batch_run import Command, run
    from mmgen.generate.provenance import parse_size
    from mmgen.generate.scoring import scorer_of

    settings = GenerateSettings(
        seed=job["seed"],
        guidance=guidance,
        size=None if size is None else parse_size(size),
        tokenizer=job["tokenizer"],
        sampling=SamplingSettings(
            temperature=job["temperature"], top_k=job["top_k"], top_p=job["top_p"]
        ),
        template=job.pop("template"),
        negative=job.pop("negative"),
        tries=job.pop("tries"),
        picture_format=picture_format,  # type: ignore[arg-type]
        quality=quality,
    )
    if check_endpoint_options(ctx, forms):
        check_served_drawings(settings)
    command = Command(
        source=source,
        names=FieldNames(id=job["id_field"], prompt=prompt_field),
        meaning="prompt",
        check=settings.request,
        parts="decoder",
        rows_per_request=2,
        make_task=lambda session, model: GenerateTask(
            settings, session.checkpoint, model=model, scorer=scorer_of(session)
        ),
        make_endpoint_task=lambda endpoint: EndpointGenerateTask(settings, endpoint),
        adapt=expanding(job),
        forms=forms or ("files",),
        options=job,
    )
    ctx.exit(run(command))


@batch.command()
@click.argument("source", metavar="INPUT")
@_forms_option((), ("sidecar", "parquet", "webdataset", "codes"))
@click.option("--image-field", default="image", show_default=True, help="Field of the picture.")
@click.option("--prompt-field", default="prompt", show_default=True, help="Field of the question.")
@click.option("--prompt", help="What to ask.  [default: as the model has it]")
@click.option("--max-tokens", type=int, default=64, show_default=True, help="Longest answer.")
@click.option(
    "--captions-in",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder for sidecars, such as that of the pictures.  [default: JOB_DIR/captions]",
)
@click.option("--extension", default=".txt", show_default=True, help="Of sidecars; .json for all.")
@click.option(
    "--existing",
    type=click.Choice(["refuse", "keep", "overwrite", "append"]),
    default="refuse",
    show_default=True,
    help="What to do where a sidecar exists.",
)
@caption_options
@_job_options
@click.pass_context
def caption(
    ctx: click.Context,
    /,
    source: str,
    forms: tuple[str, ...],
    image_field: str,
    prompt_field: str,
    prompt: str | None,
    max_tokens: int,
    captions_in: Path | None,
    extension: str,
    existing: str,
    **job: Any,
) -> None:
    """Say what is in every picture of INPUT.

    INPUT is a folder or a pattern of pictures; WebDataset tars; a file of rows that name or hold
    pictures (text, CSV, TSV, JSON, JSON lines, Parquet), or a data set saved on disk; a URL; or -
    for standard input. Rows may have an id and their own prompt, seed, temperature, top_k, top_p,
    max_tokens and tokenizer.
    """
    from mmgen.batch.readers import FieldNames
    from mmgen.batch.tasks.caption import CaptionSettings, CaptionTask
    from mmgen.batch.tasks.endpoint_caption import EndpointCaptionTask, check_served_captions
    from mmgen.batch.tasks.sampling import SamplingSettings
    from mmgen.batch.writers import SidecarRules
    from mmgen.cli.batch_run import Command, run
    from mmgen.generate.scoring import scorer_of

    if "sidecar" not in forms and (captions_in is not None or existing != "refuse"):
        raise SettingsError("--captions-in and --existing are about sidecars; add --to sidecar")
    settings = CaptionSettings(
        seed=job["seed"],
        prompt=prompt,
        max_tokens=max_tokens,
        tokenizer=job["tokenizer"],
        sampling=SamplingSettings(
            temperature=job["temperature"], top_k=job["top_k"], top_p=job["top_p"]
        ),
        controls=caption_controls(job),
    )
    if check_endpoint_options(ctx, forms):
        check_served_captions(settings)
    keep_pictures = bool({"parquet", "webdataset"} & set(forms))
    command = Command(
        source=source,
        names=FieldNames(id=job["id_field"], prompt=prompt_field, picture=image_field),
        meaning="picture",
        check=settings.check,
        parts="encoder",
        rows_per_request=1,
        make_task=lambda session, model: CaptionTask(
            settings,
            session.checkpoint,
            session.codec,
            keep_pictures=keep_pictures,
            scorer=scorer_of(session),
        ),
        make_endpoint_task=lambda endpoint: EndpointCaptionTask(
            settings, endpoint, keep_pictures=keep_pictures
        ),
        adapt=filtering(job),
        forms=forms,
        sidecars=SidecarRules(
            folder=captions_in,
            extension=extension,
            existing=existing,  # type: ignore[arg-type]
        ),
        options=job,
    )
    ctx.exit(run(command))


batch.add_command(run_file)
