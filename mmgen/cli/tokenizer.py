"""`mmgen tokenizer`: see what is installed, check it, and turn pictures into codes and back."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mmgen.cli.coding import decode, encode, load_tokenizer, open_all, weights_option
from mmgen.cli.wrapping import bridge, merge

if TYPE_CHECKING:
    from mmgen.testing import CheckResult
    from mmgen.visual_tokenizer import AbstractVisualTokenizer, Picture

__all__ = ["tokenizer"]

MAX_SHOWN_SIZES = 8

_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def tokenizer() -> None:
    """List, try, check and begin visual tokenizers.

    NAME is an installed one, or the folder of one that `merge`, `bridge` or a training of a
    decoder wrote.
    """


tokenizer.add_command(encode)
tokenizer.add_command(decode)
tokenizer.add_command(merge)
tokenizer.add_command(bridge)


@tokenizer.command("list")
@_json_option
def list_tokenizers(as_json: bool) -> None:
    """List the installed visual tokenizers."""
    from mmgen.plugins import VISUAL_TOKENIZERS, listed

    plugins = listed(VISUAL_TOKENIZERS)
    if as_json:
        click.echo(json.dumps([asdict(info) for info in plugins], indent=2))
    elif not plugins:
        click.echo("no visual tokenizer is installed", err=True)
    else:
        width = max(len(info.name) for info in plugins)
        for info in plugins:
            click.echo(f"{info.name:{width}}  {info.distribution} {info.version}  {info.value}")
    names = [info.name for info in plugins]
    for name in sorted({name for name in names if names.count(name) > 1}):
        rivals = " and ".join(info.distribution for info in plugins if info.name == name)
        click.echo(
            f"mmgen: {name!r} cannot be used: {rivals} both have it; uninstall all but one",
            err=True,
        )


@tokenizer.command()
@click.argument("name")
@click.option(
    "--kind",
    type=click.Choice(["grid", "residual", "scales", "ordered", "learned"]),
    default="grid",
    show_default=True,
    help="How codes are arranged, or whether there are weights to train.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(),
    help="Directory to write mmgen-NAME into; default: the current one.",
)
def new(name: str, kind: str, output: Path) -> None:
    """Write a package of a tokenizer that works, to start your own from.

    \b
    grid      one code for each block of a picture, in rows
    residual  several codes for each block, coarse to fine
    scales    several grids, coarse to fine, each added to those before it
    ordered   a sequence of codes, the most telling first, of any length
    learned   one code for each block, with weights to train (needs torch)
    """
    from mmgen.authoring import NewPackage, write_package
    from mmgen.errors import SettingsError
    from mmgen.plugins import VISUAL_TOKENIZERS, listed

    for plugin in listed(VISUAL_TOKENIZERS):
        if plugin.name == name:
            raise SettingsError(
                f"{plugin.distribution} {plugin.version} has a tokenizer {name!r} already; choose "
                "another name"
            )
    path = write_package(NewPackage(name=name, kind=kind), output)
    click.echo(path)
    click.echo(
        f"next: pip install -e {path} && mmgen tokenizer check {name}; README.md there goes on",
        err=True,
    )


@tokenizer.command()
@click.argument("name")
@weights_option
@_json_option
def info(name: str, weights: Path | None, as_json: bool) -> None:
    """Describe one visual tokenizer."""
    facts = _facts(*load_tokenizer(name, weights))
    if as_json:
        click.echo(json.dumps(facts, indent=2))
        return
    width = max(map(len, facts))
    for key, value in facts.items():
        if key == "sizes":
            sizes = [f"{height}x{width_}" for height, width_ in value[:MAX_SHOWN_SIZES]]
            rest = len(value) - MAX_SHOWN_SIZES
            value = " ".join(sizes) + (f" and {rest} more" if rest > 0 else "")
        elif isinstance(value, list):
            value = " ".join(map(str, value)) or "-"
        click.echo(f"{key.replace('_', ' '):{width}}  {value}")


@tokenizer.command()
@click.argument("name")
@click.option(
    "--images",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Directory of pictures for the promised PSNR; without it, drawn shapes.",
)
@click.option("--only", multiple=True, metavar="CHECK", help="Run this check (repeatable).")
@click.option("--skip", multiple=True, metavar="CHECK", help="Leave it out (repeatable).")
@weights_option
@_json_option
def check(
    name: str,
    images: Path | None,
    only: tuple[str, ...],
    skip: tuple[str, ...],
    weights: Path | None,
    as_json: bool,
) -> None:
    """Check that a visual tokenizer keeps the plugin contract.

    NAME is an installed tokenizer, the folder of a wrapper, the folder of a package that is not
    installed (as `new` writes it), or a Python file with one tokenizer in it.
    """
    from mmgen.cli.checked_plugin import find_plugin, load_plugin
    from mmgen.errors import PluginError
    from mmgen.plugins import located_visual_tokenizer
    from mmgen.testing import CHECKS
    from mmgen.testing import check as run_checks

    if (Path(name) / "tokenizer_config.json").is_file():
        name, weights = located_visual_tokenizer(name, weights)
    plugin = find_plugin(name)
    subject = load_plugin(plugin, weights)
    pictures = [] if images is None else _pictures_of(images, subject)
    click.echo(f"checking {plugin.origin}", err=as_json)
    report = run_checks(
        subject,
        pictures=pictures,
        only=only or CHECKS,
        skip=skip,
        on_result=_show_progress if as_json else _show_result,
    )
    if as_json:
        stated = {"name": plugin.name, "origin": plugin.origin} | report.to_json()
        click.echo(json.dumps(stated, indent=2))
    else:
        click.echo("\n".join(report.summary()))
    if not report.is_passed:
        names = ", ".join(result.name for result in report.failures)
        raise PluginError(
            f"visual tokenizer {plugin.name!r} fails {len(report.failures)} of "
            f"{len(report.results)} checks ({names}); the report says what to do"
        )


def _facts(name: str, subject: AbstractVisualTokenizer) -> dict[str, Any]:
    from mmgen.plugins import VISUAL_TOKENIZERS, find, load_visual_tokenizer_class

    plugin = find(VISUAL_TOKENIZERS, name)
    spec = subject.spec
    positions = spec.default_layout.num_positions
    return {
        "name": name,
        "distribution": plugin.distribution,
        "version": plugin.version,
        "class": plugin.value,
        "codebook_sizes": list(spec.codebook_sizes),
        "default_layout": str(spec.default_layout),
        "num_layouts": len(spec.layouts),
        "sizes": [list(size) for size in spec.sizes],
        "tokens_per_picture": positions * len(spec.codebook_sizes),
        "bits_per_picture": round(positions * sum(map(math.log2, spec.codebook_sizes)), 1),
        "resize": spec.resize,
        "min_psnr": spec.min_psnr,
        "prefix_decodable": spec.prefix_decodable,
        "stochastic": spec.stochastic,
        "captions_used": sorted(spec.captions_used),
        "trainable": load_visual_tokenizer_class(name).is_trainable,
        "fingerprint": subject.fingerprint,
    }


def _show_result(result: CheckResult) -> None:
    click.echo(result.to_text())


def _show_progress(result: CheckResult) -> None:
    click.echo(result.to_text(), err=True)


def _pictures_of(directory: Path, subject: AbstractVisualTokenizer) -> list[Picture]:
    from mmgen.errors import PictureError

    suffixes = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp"}
    paths = sorted(path for path in directory.iterdir() if path.suffix.lower() in suffixes)
    _, pictures = open_all(paths, subject, None)
    if not pictures:
        raise PictureError(f"no pictures in {directory}; expected {', '.join(sorted(suffixes))}")
    return pictures
