"""`mmgen evaluate`: measure a tokenizer or a model on a pack of pictures, and keep the results."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from mmgen.evaluate.yardstick import Candidate, CodeModelTask

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
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option(
    "--weights",
    "weights",
    multiple=True,
    metavar="[NAME=]DIR",
    help="Directory of settings and weights; without it, what the plugin ships. May be repeated.",
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
@click.option(
    "--with-lm",
    is_flag=True,
    help="Also train the same small decoder on the codes of each, and give bits per image. It "
    "learns from rows that --filter leaves out.",
)
@click.option(
    "--lm-steps",
    type=click.IntRange(min=1),
    metavar="N",
    help="Steps of 16 pictures that the small decoder learns for: what --with-lm costs "
    "[default: 600].",
)
@click.option(
    "--caption-column",
    metavar="COLUMN",
    help="Column of captions, for tokenizers that read them; also tells what captions are worth.",
)
@click.option(
    "--probe",
    metavar="COLUMN",
    help="Also tell this column, such as group, from the codes by a linear probe, which learns "
    "from the rows that --filter leaves out.",
)
@click.option(
    "--judge",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="PACK",
    help="Emoji pack to train mmgen's own classifier on, in whose features pictures are compared.",
)
@_output_option
@_limit_option
@_json_option
def evaluate_tokenizer_command(
    names: tuple[str, ...],
    weights: tuple[str, ...],
    data: Path,
    picture_column: str,
    filters: tuple[str, ...],
    with_lm: bool,
    lm_steps: int | None,
    caption_column: str | None,
    probe: str | None,
    judge: Path | None,
    output: Path,
    limit: int | None,
    as_json: bool,
) -> None:
    """Compare visual tokenizers with one another and with JPEG, WebP and AVIF.

    Measured on the same pictures: fidelity, of details and letters too; use and entropy of the
    codes; what wrong codes do; size, speed and parameters. Tables go to results.md, pictures to
    reconstructions.png, the curves of fidelity over size to rate.png. Each finding is kept in the
    directory `measured` there, so the same command goes on where it was stopped.
    """
    from mmgen.cli.progress import watched
    from mmgen.errors import SettingsError
    from mmgen.evaluate.classifier import ClassifierConfig, trained_classifier
    from mmgen.evaluate.comparison import compare, page
    from mmgen.evaluate.findings import Findings
    from mmgen.evaluate.pack import parse_filters, read_captions, read_emoji_pack, read_pictures
    from mmgen.evaluate.probe import read_probe_pack
    from mmgen.evaluate.rate_plot import can_plot, draw_rate_plot
    from mmgen.evaluate.report import output_directory
    from mmgen.pictures import save_png

    if lm_steps is not None and not with_lm:
        raise SettingsError("--lm-steps is about the small decoder; give --with-lm too")
    places = _weights_by_name(names, weights)
    wanted = parse_filters(filters)
    candidates = [_candidate(name, places.get(name)) for name in names]
    directory = output_directory(output)
    pictures = read_pictures(data, column=picture_column, filters=wanted, limit=limit)
    captions = None
    if caption_column is not None:
        captions = read_captions(
            data,
            column=picture_column,
            caption_column=caption_column,
            filters=wanted,
            limit=limit,
        )
    probe_pack = None
    if probe is not None:
        probe_pack = read_probe_pack(
            data, picture_column=picture_column, column=probe, filters=wanted, limit=limit
        )
    classifier = None
    if judge is not None:
        rows = [row for row in read_emoji_pack(judge) if row.split == "train"]
        classifier = trained_classifier(rows, ClassifierConfig(), directory, progress=watched)
    task = None
    if with_lm:
        task = _code_model_task(data, picture_column, wanted, caption_column, lm_steps)
    kept = directory / "measured"
    findings = Findings(
        kept, on_taken_up=lambda label: click.echo(f"{label} (measured before)", err=True)
    )
    try:
        comparison, measured = compare(
            candidates,
            pictures,
            judge=classifier,
            code_model=task,
            progress=watched,
            findings=findings,
            probe_pack=probe_pack,
            captions=captions,
        )
    except KeyboardInterrupt:
        click.echo(
            f"stopped; what was measured is in {kept}, and the same command goes on", err=True
        )
        sys.exit(130)
    save_png(page(measured), directory / "reconstructions.png")
    if can_plot():
        draw_rate_plot(comparison, directory / "rate.png")
    else:
        click.echo("no rate.png: install mmgen[train], which has matplotlib", err=True)
    _finish(directory, comparison.as_json(), comparison.markdown(), as_json)


def _code_model_task(
    data: Path,
    column: str,
    filters: Mapping[str, str],
    caption_column: str | None,
    steps: int | None,
) -> CodeModelTask:
    """Return what small decoders learn from: rows that the filters leave out, if they do."""
    from mmgen.cli.progress import watched
    from mmgen.evaluate.code_model import MAX_LEARNED, CodeModelConfig
    from mmgen.evaluate.pack import read_other_pictures
    from mmgen.evaluate.yardstick import CodeModelTask

    pictures, captions = read_other_pictures(
        data,
        column=column,
        filters=filters,
        caption_column=caption_column,
        num_pictures=MAX_LEARNED,
        progress=watched,
    )
    config = CodeModelConfig() if steps is None else CodeModelConfig(num_steps=steps)
    return CodeModelTask(config=config, pictures=tuple(pictures), captions=tuple(captions))


def _weights_by_name(names: Sequence[str], weights: Sequence[str]) -> dict[str, Path]:
    """Return the directory of each tokenizer that has one."""
    from mmgen.errors import SettingsError

    if len(set(names)) < len(names):
        raise SettingsError(f"each tokenizer is named once, got {' '.join(names)}")
    places: dict[str, Path] = {}
    for text in weights:
        name, equals, place = text.partition("=")
        if not equals and len(names) == 1:
            name, place = names[0], text
        if name not in names:
            raise SettingsError(
                f"--weights {text} is for none of {', '.join(names)}; write NAME=DIRECTORY"
            )
        if not Path(place).is_dir():
            raise SettingsError(f"--weights {text}: there is no directory {place}")
        places[name] = Path(place)
    return places


def _candidate(name: str, place: Path | None) -> Candidate:
    from mmgen.evaluate.yardstick import Candidate
    from mmgen.plugins import (
        load_visual_tokenizer,
        load_visual_tokenizer_class,
        located_visual_tokenizer,
    )

    plugin, place = located_visual_tokenizer(name, place)
    num_parameters = None
    if load_visual_tokenizer_class(plugin).is_trainable:
        # A tokenizer of its own, since asking for the network says that weights may change.
        network = load_visual_tokenizer(plugin, place).network()
        num_parameters = sum(weight.numel() for weight in network.parameters())
    return Candidate(
        name=name if plugin == name else f"{plugin} ({name})",
        tokenizer=load_visual_tokenizer(plugin, place),
        num_parameters=num_parameters,
    )


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
