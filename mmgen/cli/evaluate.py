"""`mmgen evaluate`: measure a tokenizer or a model on a pack of pictures, and keep the results."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import click

__all__ = ["evaluate"]

_data_option = click.option(
    "--data",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Parquet pack of pictures.",
)
_output_option = click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Directory for results.json, results.md and sheets of pictures.",
)
_limit_option = click.option(
    "--limit", type=click.IntRange(min=1), help="At most so many pictures in each part."
)
_json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON instead of a table."
)


@click.group()
def evaluate() -> None:
    """Measure a tokenizer or a model.

    Tables go to standard output; results and sheets of pictures go to a directory.
    """


@evaluate.command("tokenizer")
@click.argument("name")
@click.option(
    "--weights",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Directory of settings and weights; without it, what the plugin ships.",
)
@_data_option
@click.option(
    "--picture-column", default="webp64", show_default=True, help="Column of encoded pictures."
)
@click.option(
    "--filter",
    "filters",
    multiple=True,
    metavar="COLUMN=VALUE",
    help="Take only rows with this value; may be repeated.",
)
@_output_option
@_limit_option
@_json_option
def evaluate_tokenizer_command(
    name: str,
    weights: Path | None,
    data: Path,
    picture_column: str,
    filters: tuple[str, ...],
    output: Path,
    limit: int | None,
    as_json: bool,
) -> None:
    """Measure how faithfully a visual tokenizer keeps pictures, beside JPEG and WebP."""
    from dataclasses import asdict

    from mmgen.cli.progress import watched
    from mmgen.evaluate.pack import parse_filters, read_pictures
    from mmgen.evaluate.report import output_directory
    from mmgen.evaluate.tokenizer import evaluate_tokenizer
    from mmgen.pictures import save_png
    from mmgen.plugins import load_visual_tokenizer_class

    wanted = parse_filters(filters)
    directory = output_directory(output)
    tokenizer = load_visual_tokenizer_class(name).load(weights)
    pictures = read_pictures(data, column=picture_column, filters=wanted, limit=limit)
    report, sheet = evaluate_tokenizer(tokenizer, name, pictures, progress=watched)
    save_png(sheet, directory / "reconstructions.png")
    _finish(directory, asdict(report), report.markdown(), as_json)


@evaluate.command("model")
@click.option("--model", help="Name or directory of the model; by default the one installed.")
@_data_option
@_output_option
@click.option(
    "--guidance", type=click.FloatRange(min=0), help="Guidance scale; by default the model's own."
)
@click.option(
    "--pairs",
    type=click.IntRange(min=1),
    default=200,
    show_default=True,
    help="(Concept, style) pairs to draw from each split.",
)
@click.option("--batch-size", type=click.IntRange(min=1), default=16, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@_limit_option
@_json_option
def evaluate_model_command(
    model: str | None,
    data: Path,
    output: Path,
    guidance: float | None,
    pairs: int,
    batch_size: int,
    seed: int,
    limit: int | None,
    as_json: bool,
) -> None:
    """Measure what a model draws and says, on an emoji pack.

    Its tokenizer is measured on the pictures of unseen concepts. Its answers are searched for the
    concept, and the group, of pictures it has not seen. Its drawings are judged by a classifier
    that is trained here on the pack's real pictures, once; the output directory keeps it.
    """
    from mmgen.cli.progress import watched
    from mmgen.evaluate.model import ModelEvaluationConfig, evaluate_model
    from mmgen.evaluate.pack import read_emoji_pack
    from mmgen.evaluate.report import output_directory
    from mmgen.evaluate.subject import SessionSubject

    directory = output_directory(output)
    rows = read_emoji_pack(data)
    subject = SessionSubject.open(model)
    config = ModelEvaluationConfig(
        guidance_scale=subject.guidance_scale if guidance is None else guidance,
        num_pairs=pairs,
        batch_size=batch_size,
        seed=seed,
        limit=limit,
    )
    report = evaluate_model(
        subject,
        subject.tokenizer,
        subject.tokenizer_name,
        rows,
        directory,
        config,
        progress=watched,
    )
    _finish(directory, report.as_json(), report.markdown(), as_json)


def _finish(directory: Path, results: Mapping[str, object], markdown: str, as_json: bool) -> None:
    from mmgen.evaluate.report import write_json, write_text

    write_json(directory / "results.json", results)
    write_text(directory / "results.md", markdown)
    click.echo(json.dumps(results, ensure_ascii=False) if as_json else markdown, nl=as_json)
    click.echo(f"wrote results and sheets to {directory}", err=True)
