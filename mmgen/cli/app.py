"""The `mmgen` command: finds subcommands by name, loads one of them, and turns errors into lines.

Help must appear at once, so the group knows each command's name, place and one-line summary by
heart and imports a command's module only when that command is about to run.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

import click

from mmgen import __version__
from mmgen.errors import MmgenError, PluginError

__all__ = ["COMMANDS", "Place", "cli", "load_command", "main", "run_command"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a subcommand lives and what the list of commands says of it."""

    target: str
    """`module:attribute` of the click command."""
    summary: str
    """One line for `mmgen --help`."""
    distribution: str | None = None
    """The distribution to install for it, where it is not mmgen's own."""


COMMANDS: Mapping[str, Place] = {
    "generate": Place("mmgen.cli.generate:generate", "Draw pictures from words."),
    "caption": Place("mmgen.cli.generate:caption", "Say what is in pictures."),
    "chat": Place(
        "mmgen_chat.cli:chat", "Chat in the terminal, with pictures.", distribution="mmgen-chat"
    ),
    "batch": Place("mmgen.cli.batch:batch", "Caption or draw many, and never lose a line."),
    "models": Place("mmgen.cli.models:models", "List installed models and describe one."),
    "tokenizer": Place(
        "mmgen.cli.tokenizer:tokenizer", "List, try, check and begin visual tokenizers."
    ),
    "vocabulary": Place(
        "mmgen.cli.vocabulary:vocabulary", "Show a model's ids; add those of a tokenizer."
    ),
    "data": Place("mmgen.cli.data:data", "Turn pictures and texts into training shards."),
    "train": Place("mmgen.cli.train:train", "Train by a recipe."),
    "recipes": Place("mmgen.cli.train:recipes", "List recipes and show one."),
    "evaluate": Place("mmgen.cli.evaluate:evaluate", "Measure a tokenizer or a model."),
    "serve": Place("mmgen.cli.serve:serve", "Serve a model over HTTP as OpenAI does."),
    "bench": Place("mmgen.cli.bench:bench", "Measure speed and memory."),
}


def load_command(title: str, place: Place) -> click.Command:
    """Import a command; `title` is what an error calls it.

    Raises:
        PluginError: its distribution is not installed.
    """
    module, _, attribute = place.target.partition(":")
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if place.distribution is None or error.name != module.partition(".")[0]:
            raise
        raise PluginError(
            f"`{title}` belongs to a distribution of its own, which is not installed; "
            f"pip install {place.distribution}"
        ) from error
    command = getattr(found, attribute)
    assert isinstance(command, click.Command), f"{place.target} is not a click command"
    return command


class LazyGroup(click.Group):
    """A group whose subcommands are imported when they run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        place = COMMANDS.get(cmd_name)
        if place is None:
            return None
        return load_command(f"mmgen {cmd_name}", place)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], COMMANDS, n=1, cutoff=0.5)
            hint = f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(COMMANDS)}"
            ctx.fail(f"no command '{args[0]}'; {hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, place.summary) for name, place in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="`mmgen COMMAND --help` explains one command.",
)
@click.version_option(__version__, "--version", "-V", prog_name="mmgen")
def cli() -> None:
    """Draw pictures from words and words from pictures.

    Results go to standard output, everything else to standard error.
    """


def main() -> NoReturn:
    """Run the command line and leave with its exit status."""
    run_command(cli, "mmgen")


def run_command(command: click.Command, name: str) -> NoReturn:
    """Run a command as a program of its own and leave with its exit status.

    Errors that a user can cause become one line each.
    """
    try:
        status = command.main(prog_name=name, standalone_mode=False)
        sys.stdout.flush()
    except MmgenError as error:
        _leave(f"error: {_one_line(error)}", 1)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _leave("interrupted", 130)
    except BrokenPipeError:
        # Whoever read our output has left; nothing may be written at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    sys.exit(status if isinstance(status, int) else 0)


def _one_line(error: MmgenError) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _leave(message: str, status: int) -> NoReturn:
    click.echo(f"mmgen: {message}", err=True)
    sys.exit(status)
