"""`mmgen tokenizer encode` and `decode`: pictures into codes and back."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from mmgen.visual_tokenizer import AbstractVisualTokenizer, Parts, Picture

__all__ = ["decode", "encode", "load_tokenizer", "open_all", "weights_option"]

BATCH_SIZE = 32

weights_option = click.option(
    "--weights",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Directory of settings and weights; without it, what the plugin ships.",
)
_captions_option = click.option(
    "--caption",
    "captions",
    multiple=True,
    help="What a picture shows, for tokenizers that read it: one for all, or one for each.",
)


@click.command()
@click.argument("name")
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="A .npz or .json file; without it, JSON on standard output.",
)
@click.option("--size", metavar="HxW", help="Size in pixels; without it, the nearest in shape.")
@click.option("--length", type=int, help="Positions, for tokenizers with several lengths.")
@click.option(
    "--quality",
    type=float,
    help="0 to 1, for tokenizers that choose the length themselves; in place of --length.",
)
@_captions_option
@weights_option
def encode(
    name: str,
    images: tuple[Path, ...],
    output: Path | None,
    size: str | None,
    length: int | None,
    quality: float | None,
    captions: tuple[str, ...],
    weights: Path | None,
) -> None:
    """Turn pictures into codes."""
    from mmgen.cli.codes_file import CodesFile, check_output, write_codes
    from mmgen.errors import PictureError, SettingsError

    if output is not None:
        check_output(output, ".npz", ".json")
    name, subject = load_tokenizer(name, weights, parts="encoder")
    wanted = None if size is None else _parse_size(size, subject)
    said = _one_each(captions, images, "pictures")
    inputs, pictures = open_all(images, subject, wanted)
    if said is not None:
        of_image = dict(zip(images, said, strict=True))
        said = [of_image[path] for path in inputs]
    codes = []
    for start in range(0, len(pictures), BATCH_SIZE):
        part = slice(start, start + BATCH_SIZE)
        some = None if said is None else said[part]
        try:
            codes += subject.encode(pictures[part], length=length, quality=quality, captions=some)
        except ValueError as error:
            raise SettingsError(f"{name} refuses these settings: {error}") from error
    if pictures:
        write_codes(
            CodesFile(name, subject.fingerprint, tuple(map(str, inputs)), tuple(codes)), output
        )
        if output is not None:
            click.echo(output)
    if len(pictures) < len(images):
        raise PictureError(
            f"{len(images) - len(pictures)} of {len(images)} pictures could not be read"
        )


@click.command()
@click.argument("name")
@click.argument("file", type=click.Path(allow_dash=True, path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="A .png file for one picture, a directory for several; default: named after FILE.",
)
@_captions_option
@weights_option
def decode(
    name: str,
    file: Path,
    output: Path | None,
    captions: tuple[str, ...],
    weights: Path | None,
) -> None:
    """Turn codes, as `encode` wrote them, into pictures (`-` reads JSON from standard input)."""
    from mmgen.cli.codes_file import read_codes
    from mmgen.errors import DataError, PluginError, SettingsError
    from mmgen.pictures import half_blocks, save_png, to_picture

    name, subject = load_tokenizer(name, weights, parts="decoder")
    stored = read_codes(file, name, subject.spec)
    if stored.fingerprint != subject.fingerprint:
        raise PluginError(
            f"{file} has codes of {name} {stored.fingerprint}, but {subject.fingerprint} is "
            "loaded; give the weights that made the codes with --weights"
        )
    said = _one_each(captions, stored.codes, "items of codes")
    if said is not None and "decode" not in subject.spec.captions_used:
        raise SettingsError(f"{name} reads no captions while decoding; leave --caption out")
    paths = _outputs(file, output, stored.inputs)
    try:
        pictures = subject.decode(stored.codes, captions=said)
    except ValueError as error:
        raise DataError(f"{file} has codes that {name} refuses: {error}") from error
    metadata = {"mmgen.tokenizer": name, "mmgen.tokenizer_fingerprint": subject.fingerprint}
    for path, array in zip(paths, pictures, strict=True):
        picture = to_picture(array)
        save_png(picture, path, metadata)
        click.echo(path)
        if sys.stdout.isatty():
            click.echo(half_blocks(picture, 48))


def load_tokenizer(
    name: str, weights: Path | None, parts: Parts = "both"
) -> tuple[str, AbstractVisualTokenizer]:
    """Return the plugin's name, and the tokenizer that a name or a folder stands for."""
    from mmgen.plugins import load_visual_tokenizer, located_visual_tokenizer

    plugin, place = located_visual_tokenizer(name, weights)
    return plugin, load_visual_tokenizer(plugin, place, parts=parts)


def _one_each(captions: Sequence[str], items: Sequence[object], noun: str) -> list[str] | None:
    """Return a caption for each item: the only one for all of them, or none if there is none."""
    from mmgen.errors import SettingsError

    if not captions:
        return None
    if len(captions) == 1:
        return [captions[0]] * len(items)
    if len(captions) != len(items):
        raise SettingsError(
            f"there are {len(captions)} captions for {len(items)} {noun}; give one for each, or "
            "one for all"
        )
    return list(captions)


def open_all(
    paths: Sequence[Path], subject: AbstractVisualTokenizer, size: tuple[int, int] | None
) -> tuple[list[Path], list[Picture]]:
    """Return the pictures that can be read, with their paths; name the others on stderr."""
    from mmgen.errors import PictureError
    from mmgen.pictures import open_picture, to_array

    opened: list[Path] = []
    pictures: list[Picture] = []
    for path in paths:
        try:
            picture = open_picture(path)
        except PictureError as error:
            click.echo(f"mmgen: {error}", err=True)
            continue
        chosen = size or _nearest_size((picture.height, picture.width), subject.spec.sizes)
        opened.append(path)
        pictures.append(to_array(picture, chosen, subject.spec.resize))
    return opened, pictures


def _nearest_size(size: tuple[int, int], sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Return the size nearest in aspect ratio, and of several the nearest in area."""

    def distance(other: tuple[int, int]) -> tuple[float, float]:
        aspect = math.log(other[0] / other[1]) - math.log(size[0] / size[1])
        return round(abs(aspect), 6), abs(math.log(other[0] * other[1] / (size[0] * size[1])))

    return min(sizes, key=distance)


def _parse_size(text: str, subject: AbstractVisualTokenizer) -> tuple[int, int]:
    from mmgen.errors import SettingsError

    sizes = {f"{height}x{width}": (height, width) for height, width in subject.spec.sizes}
    if text.lower() not in sizes:
        raise SettingsError(f"size {text!r} is not allowed; allowed are {', '.join(sizes)}")
    return sizes[text.lower()]


def _outputs(file: Path, output: Path | None, inputs: Sequence[str]) -> list[Path]:
    """Return a path for each picture, in a directory that exists."""
    from mmgen.cli.codes_file import check_output
    from mmgen.errors import SettingsError

    if output is None and str(file) == "-":
        raise SettingsError("codes from standard input have no name; give -o")
    if len(inputs) == 1 and not (output and output.is_dir()):
        path = output or Path(file.name).with_suffix(".png")
        check_output(path, ".png")
        return [path]
    directory = output or Path(file.stem)
    if directory.suffix.lower() == ".png":
        raise SettingsError(f"{len(inputs)} pictures do not fit {directory}; give a directory")
    paths = [directory / f"{index:04}_{Path(name).stem}.png" for index, name in enumerate(inputs)]
    check_output(paths[0], ".png")
    return paths
