"""The choice of an engine on the command line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from mmgen.generate.engines import EngineName
    from mmgen.generate.session import Session
    from mmgen.visual_tokenizer import Parts

__all__ = ["engine_option", "open_engine", "vllm_option"]

Command = TypeVar("Command", bound=Callable[..., Any])


def engine_option(command: Command) -> Command:
    """Add `--engine` to a command."""
    return click.option(
        "--engine",
        type=click.Choice(["torch", "vllm"]),
        default="torch",
        show_default=True,
        help="What runs the decoder; vllm has to be installed.",
    )(command)


def vllm_option(command: Command) -> Command:
    """Add `--vllm` to a command."""
    return click.option(
        "--vllm",
        "vllm_settings",
        multiple=True,
        metavar="NAME=VALUE",
        help="A setting of vLLM, as tensor_parallel_size=2; may be repeated.",
    )(command)


def open_engine(
    engine: EngineName,
    model: str | None,
    *,
    parts: Parts = "both",
    num_rows: int = 64,
    device: str = "cpu",
    vllm: Sequence[str] = (),
) -> Session:
    """Open a session, and say so where that takes a while."""
    from mmgen.generate.engines import open_engine_session
    from mmgen.generate.vllm_start import installed_vllm

    if engine == "vllm":
        click.echo(f"mmgen: starting vLLM {installed_vllm()}", err=True)
    return open_engine_session(
        engine, model, parts=parts, num_rows=num_rows, device=device, vllm=vllm
    )
