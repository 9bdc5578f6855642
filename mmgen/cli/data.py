"""`mmgen data`: make training shards of pictures and texts, and look at what shards hold."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from mmgen.data.prepare import Progress
    from mmgen.data.shards import Manifest, ShardFolder
    from mmgen.data.sources import AbstractSource
    from mmgen.document import Document, DocumentCodec

__all__ = ["data"]

KINDS = ("parquet", "folder", "jsonl", "webdataset", "text", "shapes")
_SUFFIXES = {".parquet": "parquet", ".jsonl": "jsonl", ".tar": "webdataset", ".txt": "text"}
# Which options say something about which kind of source.
_MEANT_FOR = {
    "picture_column": ("parquet", "jsonl"),
    "caption_columns": ("parquet", "jsonl"),
    "attributes": ("parquet", "jsonl", "webdataset"),
    "constants": ("parquet", "folder", "jsonl", "webdataset"),
    "filters": ("parquet", "text"),
    "balance": ("parquet",),
    "text_column": ("text",),
    "remove": ("text",),
}
_SHAPES_COUNT = 1000
_SECONDS_BETWEEN_LINES = 10.0
_MAX_REFUSED_SHOWN = 10


def _pairs(
    context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> tuple[tuple[str, str], ...]:
    pairs = []
    for value in values:
        left, _, right = value.partition("=")
        if not (left and right):
            raise click.BadParameter(f"{value!r} is not of the form NAME=VALUE", context, parameter)
        pairs.append((left, right))
    return tuple(pairs)


@click.group()
def data() -> None:
    """Turn pictures and texts into training shards."""


@data.command()
@click.argument("source", required=False, type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder.")
@click.option("--model", required=True, help="Checkpoint or installed model that it is for.")
@click.option("--kind", type=click.Choice(KINDS), help="Kind of source; by default from its name.")
@click.option("--picture-column", help="Column or field of pictures.  [default: image]")
@click.option(
    "--caption-column", "caption_columns", multiple=True, help="Column or field of captions."
)
@click.option(
    "--attribute",
    "attributes",
    multiple=True,
    callback=_pairs,
    metavar="NAME=VALUE",
    help="An attribute and its column.",
)
@click.option(
    "--constant",
    "constants",
    multiple=True,
    callback=_pairs,
    metavar="NAME=VALUE",
    help="An attribute all rows have.",
)
@click.option(
    "--filter",
    "filters",
    multiple=True,
    callback=_pairs,
    metavar="NAME=VALUE",
    help="A column and a value to keep.",
)
@click.option("--balance", multiple=True, help="Column; rows equal in these count as one.")
@click.option("--text-column", help="Column of texts.  [default: text]")
@click.option("--remove", help="Regular expression of what to leave out of texts.")
@click.option("--variants", default=2, show_default=True, help="Documents each way per picture.")
@click.option("--mixed", default=0, show_default=True, help="Documents that draw and then ask.")
@click.option("--name", "named", default=0, show_default=True, help="Documents that only name.")
@click.option("--context-length", default=1024, show_default=True, help="Ids a document may have.")
@click.option("--tokenizer", help="Visual tokenizer, if the model has several.")
@click.option("--shift", default=0.0, help="Largest shift of described pictures (share of a side).")
@click.option("--zoom", default=0.0, help="Largest zoom of described pictures.")
@click.option("--brightness", default=0.0, help="Largest change of their brightness.")
@click.option("--hue", default=0.0, help="Largest turn of their hue (share of the circle).")
@click.option("--limit", type=int, help="Take so many rows.")
@click.option("--rows-per-shard", default=1024, show_default=True, help="Source rows per file.")
@click.option("--seed", default=0, show_default=True)
def prepare(
    source: Path | None,
    output: Path,
    model: str,
    kind: str | None,
    picture_column: str | None,
    caption_columns: tuple[str, ...],
    attributes: tuple[tuple[str, str], ...],
    constants: tuple[tuple[str, str], ...],
    filters: tuple[tuple[str, str], ...],
    balance: tuple[str, ...],
    text_column: str | None,
    remove: str | None,
    variants: int,
    mixed: int,
    named: int,
    context_length: int,
    tokenizer: str | None,
    shift: float,
    zoom: float,
    brightness: float,
    hue: float,
    limit: int | None,
    rows_per_shard: int,
    seed: int,
) -> None:
    """Make shards of SOURCE: a Parquet file, JSON lines, a tar, a folder, or a text.

    Run again after an interruption, it goes on where it stopped.
    """
    kind = kind or _kind_of(source)
    given = {
        "picture_column": picture_column,
        "caption_columns": caption_columns,
        "attributes": attributes,
        "constants": constants,
        "filters": filters,
        "balance": balance,
        "text_column": text_column,
        "remove": remove,
    }
    for name, value in given.items():
        if value and kind not in _MEANT_FOR[name]:
            raise click.UsageError(
                f"--{name.removesuffix('s').replace('_', '-')} does not fit a {kind} source"
            )

    from mmgen.checkpoint import open_checkpoint
    from mmgen.data.augment import Augmentation
    from mmgen.data.prepare import PrepareConfig
    from mmgen.data.prepare import prepare as prepare_shards
    from mmgen.errors import DataError

    config = PrepareConfig(
        num_draw=variants,
        num_describe=variants,
        num_mixed=mixed,
        num_name=named,
        context_length=context_length,
        tokenizer=tokenizer,
        augmentation=Augmentation(
            max_shift=shift, max_zoom=zoom, max_brightness=brightness, max_hue=hue
        ),
        limit=limit,
        rows_per_shard=rows_per_shard,
        seed=seed,
    )
    rows: AbstractSource
    if kind == "shapes":
        from mmgen.data.shapes import ShapesSource

        rows = ShapesSource(seed, limit or _SHAPES_COUNT)
    elif source is None:
        raise click.UsageError(f"a {kind} source needs the argument SOURCE")
    elif kind == "text":
        rows = _text_source(source, text_column, filters, remove)
    else:
        rows = _picture_source(
            kind, source, picture_column, caption_columns, attributes, constants, filters, balance
        )
    with _progress() as on_progress:
        codec = open_checkpoint(model).codec(parts="encoder")
        manifest = prepare_shards(config, rows, codec, output, on_progress=on_progress)
    for row, reason in manifest.refused[:_MAX_REFUSED_SHOWN]:
        click.echo(f"left out {row}: {reason}", err=True)
    if len(manifest.refused) > _MAX_REFUSED_SHOWN:
        more = len(manifest.refused) - _MAX_REFUSED_SHOWN
        click.echo(f"left out {more} more", err=True)
    if not manifest.num_documents:
        raise DataError(f"none of the {manifest.num_rows} rows of the source could be used")
    click.echo(_summary(manifest, output))


@data.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--model", help="Checkpoint or installed model with which to show documents.")
@click.option("--samples", default=3, show_default=True, help="Documents to show, with --model.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def info(folder: Path, model: str | None, samples: int, as_json: bool) -> None:
    """Say what FOLDER of shards holds."""
    from mmgen.data.shards import ShardFolder

    codec: DocumentCodec | None = None
    if model is not None:
        from mmgen.checkpoint import open_checkpoint

        codec = open_checkpoint(model).codec(parts="encoder")
    shards = ShardFolder(folder, fingerprint=codec.vocabulary.fingerprint if codec else None)
    facts = _facts(shards)
    texts = [] if codec is None else list(_shown(shards, codec, samples))
    if as_json:
        click.echo(json.dumps({**facts, "samples": texts}, indent=2, ensure_ascii=False))
        return
    width = max(map(len, facts))
    for key, value in facts.items():
        click.echo(f"{key.replace('_', ' '):{width}}  {value}")
    for text in texts:
        click.echo(f"\n{text}")


def _kind_of(source: Path | None) -> str:
    if source is None:
        raise click.UsageError("name a SOURCE, or give --kind shapes")
    if source.is_dir():
        return "folder"
    kind = _SUFFIXES.get(source.suffix)
    if kind is None:
        raise click.UsageError(f"cannot tell what {source} is; give --kind ({', '.join(KINDS)})")
    return kind


def _picture_source(
    kind: str,
    source: Path,
    picture_column: str | None,
    caption_columns: Sequence[str],
    attributes: Sequence[tuple[str, str]],
    constants: Sequence[tuple[str, str]],
    filters: Sequence[tuple[str, str]],
    balance: Sequence[str],
) -> AbstractSource:
    from mmgen.data.files import FolderSource, JsonlSource, WebDatasetSource
    from mmgen.data.sources import ParquetSource

    if kind == "parquet":
        return ParquetSource(
            source,
            picture_column=picture_column or "image",
            caption_columns=caption_columns,
            attributes=dict(attributes),
            constants=dict(constants),
            filters=_grouped(filters),
            balance=balance,
        )
    if kind == "jsonl":
        return JsonlSource(
            source,
            picture_field=picture_column or "image",
            caption_fields=caption_columns or ("caption",),
            attributes=dict(attributes),
            constants=dict(constants),
        )
    if kind == "webdataset":
        tars = sorted(source.glob("*.tar")) if source.is_dir() else [source]
        return WebDatasetSource(tars, attributes=dict(attributes), constants=dict(constants))
    return FolderSource(source, constants=dict(constants))


def _text_source(
    source: Path, column: str | None, filters: Sequence[tuple[str, str]], remove: str | None
) -> AbstractSource:
    from mmgen.data.texts import TextSource

    return TextSource(
        source, column=column or "text", filters=_grouped(filters), remove=remove or ""
    )


def _grouped(pairs: Sequence[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    """Join the values of one column: a row must have one of them."""
    groups: dict[str, tuple[str, ...]] = {}
    for column, value in pairs:
        groups[column] = (*groups.get(column, ()), value)
    return groups


@contextmanager
def _progress() -> Iterator[Callable[[Progress], None]]:
    """Show progress on standard error: a bar on a terminal, a line now and then elsewhere."""
    if not sys.stderr.isatty():
        yield _line_writer()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("rows"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("rows", total=None)

        def advance(progress: Progress) -> None:
            bar.update(task, completed=progress.num_rows_done, total=progress.num_rows)

        yield advance


def _line_writer() -> Callable[[Progress], None]:
    last = time.monotonic()

    def write(progress: Progress) -> None:
        nonlocal last
        if time.monotonic() - last >= _SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            click.echo(
                f"{progress.num_rows_done} of {progress.num_rows} rows, "
                f"{progress.num_documents} documents",
                err=True,
            )

    return write


def _summary(manifest: Manifest, output: Path) -> str:
    refused = f", {len(manifest.refused)} left out" if manifest.refused else ""
    return (
        f"{output}: {manifest.num_documents} documents, {manifest.num_tokens} tokens, "
        f"{len(manifest.shards)} shards of {manifest.num_rows} rows{refused}"
    )


def _facts(shards: ShardFolder) -> dict[str, int | str | bool]:
    manifest = shards.manifest
    num_image = sum(shard.num_image_tokens for shard in manifest.shards)
    lengths = shards.lengths
    return {
        "is_complete": manifest.is_complete,
        "rows": manifest.num_rows,
        "rows_done": manifest.next_row,
        "left_out": len(manifest.refused),
        "shards": len(manifest.shards),
        "documents": len(shards),
        "tokens": shards.num_tokens,
        "image_tokens": num_image,
        "text_tokens": shards.num_tokens - num_image,
        "loss_tokens": sum(shard.num_loss_tokens for shard in manifest.shards),
        "longest_document": int(lengths.max()) if len(lengths) else 0,
        "vocabulary": manifest.vocabulary,
    }


def _shown(shards: ShardFolder, codec: DocumentCodec, count: int) -> Iterator[str]:
    """Yield documents from all over the folder as text."""
    step = max(1, len(shards) // max(1, count))
    for index in range(0, min(len(shards), step * count), step):
        sample = shards.sample(index)
        yield f"{sample.row}:{sample.variant}\n{_as_text(codec.decode(sample.ids))}"


def _as_text(document: Document) -> str:
    from mmgen.document import Segment, Text

    def shown(segments: Sequence[Segment]) -> str:
        return " ".join(
            item.text if isinstance(item, Text) else f"[{item.tokenizer} picture]"
            for item in segments
        )

    if document.segments:
        return shown(document.segments)
    return "\n".join(f"  {turn.role}: {shown(turn.segments)}" for turn in document.turns)
