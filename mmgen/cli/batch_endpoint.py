"""Options of batch commands that have a server answer, and what cannot be had from one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from mmgen.errors import SettingsError

if TYPE_CHECKING:
    from mmgen.batch.endpoint import Endpoint

__all__ = ["check_endpoint_options", "endpoint_options", "open_endpoint"]

Command = TypeVar("Command", bound=Callable[..., Any])

_OPTIONS = [
    click.option("--endpoint", metavar="URL", help="Have this server answer, such as mmgen serve."),
    click.option(
        "--api-key",
        envvar="MMGEN_API_KEY",
        show_envvar=True,
        metavar="KEY",
        help="What the server must be sent.",
    ),
    click.option(
        "--concurrency",
        type=click.IntRange(1, 1024),
        default=32,
        show_default=True,
        help="Requests to the server under way at once.",
    ),
    click.option(
        "--omit",
        multiple=True,
        type=click.Choice(["max_tokens", "response_format", "seed"]),
        help="Field that the server refuses, to be left out; may be repeated.",
    ),
]
_OF_A_SERVER = ("api_key", "concurrency", "omit")
_OF_A_MODEL_HERE = (
    "engine", "engine_rows", "device", "workers", "ray", "ray_workers", "ray_packet"
)  # fmt: skip


def endpoint_options(command: Command) -> Command:
    """Add the options of servers."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def check_endpoint_options(ctx: click.Context, forms: Sequence[str]) -> bool:
    """Refuse options that have no meaning; return whether a server answers.

    Args:
        forms: outputs that are asked for.
    """
    is_remote = ctx.params["endpoint"] is not None
    for name in _OF_A_MODEL_HERE if is_remote else _OF_A_SERVER:
        if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            option = f"--{name.replace('_', '-')}"
            raise SettingsError(
                f"{option} is about a model in this process; leave it out with --endpoint"
                if is_remote
                else f"{option} is about a server; add --endpoint, or leave it out"
            )
    if is_remote and "codes" in forms:
        raise SettingsError(
            "--to codes takes the model's own ids, which no server gives; choose another output, "
            "or run the model here, without --endpoint"
        )
    return is_remote


def open_endpoint(options: dict[str, Any]) -> Endpoint:
    """Return the server that options name, which has said what it serves."""
    from mmgen.batch.endpoint import Endpoint, find_model
    from mmgen.batch.posting import EndpointPoster

    poster = EndpointPoster(options["endpoint"], api_key=options["api_key"])
    return Endpoint(poster, find_model(poster, options["model"]), omit=options["omit"])
