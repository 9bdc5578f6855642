"""`mmgen train` and `mmgen recipes`: run a recipe, list recipes, show what one would do."""

from __future__ import annotations

import shlex
import sys

import click

__all__ = ["recipes", "train"]

_RECIPE_HELP = "RECIPE is an installed recipe (`mmgen recipes list`) or MODULE:FUNCTION."


@click.command(epilog=_RECIPE_HELP)
@click.argument("recipe")
@click.argument("overrides", nargs=-1, metavar="[A.B=C]...")
def train(recipe: str, overrides: tuple[str, ...]) -> None:
    """Train by a recipe, with single settings changed.

    The same command continues a run that was stopped, by Ctrl-C or in any other way. On several
    devices: torchrun --nproc-per-node 8 -m mmgen train RECIPE ...
    """
    from mmgen.train.processes import open_processes
    from mmgen.train.progress import open_progress
    from mmgen.train.run import configure, find_recipe, run

    config = configure(find_recipe(recipe), overrides)
    with open_processes() as processes:
        result = run(config, progress=open_progress(sys.stderr))
    if not processes.is_first:
        return
    if result.stopped is not None:
        command = shlex.join(["mmgen", "train", recipe, *overrides])
        click.echo(f"stopped in {result.stopped}, all saved; continue with: {command}", err=True)
        sys.exit(130)
    click.echo(f"done: {', '.join(result.done) or 'everything was finished before'}", err=True)


@click.group()
def recipes() -> None:
    """List recipes and show one."""


@recipes.command("list")
@click.option("--json", "as_json", is_flag=True, help="One object per line.")
def list_recipes(as_json: bool) -> None:
    """List the installed recipes."""
    import json

    from mmgen.plugins import RECIPES, installed

    found = list(installed(RECIPES).values())
    if as_json:
        for info in found:
            fields = {
                "name": info.name,
                "distribution": info.distribution,
                "version": info.version,
                "value": info.value,
            }
            click.echo(json.dumps(fields))
        return
    # The longest part last: whatever is installed, the columns before it stay in line.
    rows = [(info.name, f"{info.distribution} {info.version}", info.value) for info in found]
    widths = [max((len(row[column]) for row in rows), default=0) for column in (0, 1)]
    for name, distribution, value in rows:
        click.echo(f"{name:<{widths[0]}}  {distribution:<{widths[1]}}  {value}")


@recipes.command("show", epilog=_RECIPE_HELP)
@click.argument("recipe")
@click.argument("overrides", nargs=-1, metavar="[A.B=C]...")
def show_recipe(recipe: str, overrides: tuple[str, ...]) -> None:
    """Print every setting of a recipe, one a line, in the form that `mmgen train` takes."""
    from mmgen.train.overrides import to_plain, walk
    from mmgen.train.run import configure, find_recipe

    config = configure(find_recipe(recipe), overrides)
    for path, value in walk(to_plain(config)):
        click.echo(f"{path}={_spelled(value)}")


def _spelled(value: object) -> str:
    """Return a plain value as an override spells it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ",".join(map(_spelled, value))
    return str(value)
