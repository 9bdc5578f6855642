"""`mmgen tokenizer merge` and `bridge`: make a tokenizer of a tokenizer, from pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

if TYPE_CHECKING:
    from mmgen.visual_tokenizer import AbstractVisualTokenizer, Picture
    from mmgen.wrapping.wrapper import AbstractWrapper, Wrapped

__all__ = ["bridge", "merge"]

BATCH_SIZE = 32


def _with_pictures(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that both commands take."""
    options = (
        click.option(
            "--data",
            required=True,
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="Parquet pack of pictures to learn from.",
        ),
        click.option(
            "--picture-column",
            default="webp64",
            show_default=True,
            help="Column of encoded pictures.",
        ),
        click.option(
            "--filter",
            "filters",
            multiple=True,
            metavar="COLUMN=VALUE",
            help="Take only rows with this value; may be repeated.",
        ),
        click.option(
            "--limit",
            type=click.IntRange(min=1),
            default=8000,
            show_default=True,
            help="At most so many pictures.",
        ),
        click.option(
            "--weights",
            type=click.Path(exists=True, file_okay=False, path_type=Path),
            help="Directory of settings and weights of NAME; without it, what the plugin ships.",
        ),
        click.option(
            "-o",
            "--output",
            required=True,
            type=click.Path(file_okay=False, path_type=Path),
            help="Directory of the new tokenizer.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.command()
@click.argument("name")
@_with_pictures
@click.option(
    "--merges",
    type=click.IntRange(min=1),
    default=2048,
    show_default=True,
    help="Codes to add, at most.",
)
@click.option(
    "--longest",
    type=click.IntRange(min=2),
    default=16,
    show_default=True,
    help="Codes of NAME that a new one may stand for, at most.",
)
def merge(
    name: str,
    data: Path,
    picture_column: str,
    filters: tuple[str, ...],
    limit: int,
    weights: Path | None,
    output: Path,
    merges: int,
    longest: int,
) -> None:
    """Make a tokenizer that writes frequent runs of another's codes as one code.

    It loses nothing. A plain picture takes few codes, a busy one up to as many as before; a model
    spells how many. NAME needs one codebook; pictures are of its default size.
    """
    from mmgen.wrapping.merged import merge_tokenizer

    wrapped = _wrapped(name, weights)
    tokenizer = wrapped.guarded
    codes = [
        item
        for batch in _batches(tokenizer, data, picture_column, filters, limit)
        for item in tokenizer.encode(batch)
    ]
    made = merge_tokenizer(wrapped, codes, num_merges=merges, max_length=longest)
    lengths = [len(made.merges.apply(item.array[:, 0].tolist())) for item in codes]
    _save(made, output)
    click.echo(
        f"{len(made.merges.pairs):,} merges; {sum(lengths) / len(lengths):.1f} codes a picture in "
        f"place of {len(codes[0].array)} (of {len(codes):,} pictures, {min(lengths)} to "
        f"{max(lengths)})",
        err=True,
    )


@click.command()
@click.argument("name")
@_with_pictures
@click.option(
    "--bins",
    type=click.IntRange(min=2),
    default=16,
    show_default=True,
    help="Codes of each number of a latent.",
)
@click.option(
    "--rule",
    type=click.Choice(["quantile", "gaussian"]),
    default="quantile",
    show_default=True,
    help="Bins of equal shares of the latents, or of the normal distribution like them.",
)
@click.option(
    "--min-psnr", type=float, default=0.0, show_default=True, help="PSNR in dB to promise."
)
def bridge(
    name: str,
    data: Path,
    picture_column: str,
    filters: tuple[str, ...],
    limit: int,
    weights: Path | None,
    output: Path,
    bins: int,
    rule: Literal["quantile", "gaussian"],
    min_psnr: float,
) -> None:
    """Make a tokenizer of a continuous autoencoder, with a codebook for each number of a latent.

    NAME is a tokenizer whose plugin gives latents, such as `continuous` with --weights.
    """
    from mmgen.wrapping.bridged import bridge_tokenizer, continuous

    wrapped = _wrapped(name, weights)
    autoencoder = continuous(wrapped)
    latents = [
        item
        for batch in _batches(wrapped.tokenizer, data, picture_column, filters, limit)
        for item in autoencoder.encode_latents(batch)
    ]
    made = bridge_tokenizer(wrapped, latents, num_bins=bins, bins=rule, min_psnr=min_psnr)
    _save(made, output)
    click.echo(
        f"{autoencoder.latent_dim} codebooks of {bins} codes, from {len(latents):,} pictures",
        err=True,
    )


def _wrapped(name: str, weights: Path | None) -> Wrapped:
    from mmgen.plugins import located_visual_tokenizer
    from mmgen.wrapping.wrapper import load_wrapped

    return load_wrapped(*located_visual_tokenizer(name, weights))


def _batches(
    tokenizer: AbstractVisualTokenizer,
    data: Path,
    column: str,
    filters: tuple[str, ...],
    limit: int,
) -> Iterator[list[Picture]]:
    """Yield the pictures of a pack in batches, in the tokenizer's default size."""
    from mmgen.cli.progress import watched
    from mmgen.evaluate.pack import parse_filters, read_pictures
    from mmgen.pictures import to_array

    pictures = read_pictures(data, column=column, filters=parse_filters(filters), limit=limit)
    spec = tokenizer.spec
    for start in watched(range(0, len(pictures), BATCH_SIZE), "encoding pictures"):
        batch = pictures[start : start + BATCH_SIZE]
        yield [to_array(picture, spec.sizes[0], spec.resize) for picture in batch]


def _save(made: AbstractWrapper, output: Path) -> None:
    """Write a wrapper's folder, and make sure that it loads as what it is."""
    from mmgen.errors import OutputError, PluginError

    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise OutputError(f"{output} exists and is not empty; choose another place")
    try:
        output.mkdir(parents=True, exist_ok=True)
        made.save(output)
    except OSError as error:
        raise OutputError(f"cannot write into {output}: {error.strerror or error}") from error
    found = type(made).load(output).fingerprint
    if found != made.fingerprint:
        raise PluginError(
            f"the tokenizer has the fingerprint {made.fingerprint}, but {found} when it is loaded "
            f"again from {output}; run `mmgen tokenizer check {made.wrapped_name}`"
        )
    click.echo(output)
