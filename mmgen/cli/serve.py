"""`mmgen serve`: an OpenAI-compatible server that reads and draws."""

from __future__ import annotations

import signal
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mmgen.cli.engines import engine_option, open_engine, vllm_option
from mmgen.errors import PluginError, SettingsError
from mmgen.serve.settings import Limits

if TYPE_CHECKING:
    from mmgen.generate.engines import EngineName

__all__ = ["serve"]

LIMITS = Limits()
EXTRA = ("fastapi", "httpx", "prometheus_client", "python_multipart", "uvicorn")


@click.command()
@click.argument("model", required=False, metavar="[NAME|DIR]")
@engine_option
@vllm_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8000,
    show_default=True,
    help="Port to listen on; 0 for any that is free.",
)
@click.option(
    "--api-key",
    envvar="MMGEN_API_KEY",
    show_envvar=True,
    metavar="KEY",
    help="What clients must send.  [default: everybody is let in]",
)
@click.option("--model-name", metavar="NAME", help="What clients call the model.")
@click.option(
    "--allow-url-host",
    "url_hosts",
    multiple=True,
    metavar="HOST",
    help="Fetch pictures from this host; may be repeated.  [default: fetch nothing]",
)
@click.option(
    "--max-turns",
    type=int,
    default=LIMITS.max_turns,
    show_default=True,
    help="Answers and pictures in the works at once.",
)
@click.option(
    "--max-n",
    type=int,
    default=LIMITS.max_n,
    show_default=True,
    help="Answers or pictures of one request.",
)
@click.option(
    "--max-tokens",
    type=int,
    default=LIMITS.max_tokens,
    show_default=True,
    help="Text tokens of one answer.",
)
@click.option(
    "--max-body",
    type=int,
    metavar="BYTES",
    default=LIMITS.max_body_bytes,
    show_default=True,
    help="Largest body of a request.",
)
@click.option(
    "--max-pixels",
    type=int,
    default=LIMITS.max_pixels,
    show_default=True,
    help="Pixels of a request's pictures.",
)
@click.option(
    "--rows",
    type=int,
    default=64,
    show_default=True,
    help="Rows of the engine's batch; a guided picture takes two.",
)
@click.option("--device", default="cpu", show_default=True, help="Where the torch engine runs.")
@click.option(
    "--replicas",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Engines, each in a process of its own; a request goes to the one with the least to do.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Processes that take connections.",
)
@click.option(
    "--shutdown-seconds",
    type=click.IntRange(min=1),
    default=30,
    show_default=True,
    help="How long running requests may take to finish at the end.",
)
@click.option("--log-requests", is_flag=True, help="Print a line per request.")
def serve(
    model: str | None,
    engine: EngineName,
    vllm_settings: tuple[str, ...],
    host: str,
    port: int,
    api_key: str | None,
    model_name: str | None,
    url_hosts: tuple[str, ...],
    max_turns: int,
    max_n: int,
    max_tokens: int,
    max_body: int,
    max_pixels: int,
    rows: int,
    device: str,
    replicas: int,
    workers: int,
    shutdown_seconds: int,
    log_requests: bool,
) -> None:
    """Serve a model over HTTP in the shapes of OpenAI's API, until Ctrl-C or SIGTERM.

    The model is an installed one by name or a checkpoint's directory; without it, the default.
    """
    check_extra()
    from mmgen.checkpoint import DEFAULT_MODEL
    from mmgen.generate.engines import open_engine_session
    from mmgen.generate.vllm_config import VllmEngineConfig
    from mmgen.generate.vllm_start import follow_vllm
    from mmgen.serve.listening import address_of, bind
    from mmgen.serve.replicas import ReplicaPlan, replica_devices, serve_replicas
    from mmgen.serve.server import serve_session
    from mmgen.serve.settings import ServerConfig

    limits = Limits(
        max_turns=max_turns,
        max_n=max_n,
        max_tokens=max_tokens,
        max_body_bytes=max_body,
        max_pixels=max_pixels,
    )
    config = ServerConfig(
        model_name=model_name or Path(model or DEFAULT_MODEL).resolve().name,
        api_key=api_key,
        allowed_url_hosts=frozenset(name.lower() for name in url_hosts),
        limits=limits,
    )
    is_divided = replicas > 1 or workers > 1
    if engine == "vllm":
        settings = VllmEngineConfig.from_words(vllm_settings, num_rows=rows)
        if is_divided and settings.num_machines > 1:
            raise SettingsError(
                "replicas and workers are for engines of one machine; leave nnodes out"
            )
        if settings.is_follower:
            click.echo("mmgen: working for the engine of another machine; Ctrl-C ends it", err=True)
            # vLLM's workers are ended on the way out, which a bare signal would not take.
            signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
            follow_vllm(model, settings)
            return
    with bind(host, port) as listener:
        if api_key is None and listener.getsockname()[0] not in ("127.0.0.1", "::1"):
            click.echo(
                f"mmgen: warning: without --api-key, whoever reaches {host} can use the server",
                err=True,
            )
        address = address_of(listener)

        def tell() -> None:
            several = f", {replicas} replicas, {workers} workers" if is_divided else ""
            click.echo(
                f"mmgen: serving {config.model_name} at {address}/v1 (engine {engine}{several}); "
                "Ctrl-C ends it",
                err=True,
            )

        if is_divided:
            serve_replicas(
                ReplicaPlan(
                    open_session=partial(
                        open_engine_session,
                        engine,
                        model,
                        num_rows=rows,
                        device=device,
                        vllm=vllm_settings,
                    ),
                    config=config,
                    num_replicas=replicas,
                    num_workers=workers,
                    devices=replica_devices(engine, device, vllm_settings, replicas),
                    shutdown_seconds=shutdown_seconds,
                    log_requests=log_requests,
                ),
                listener,
                when_ready=tell,
            )
        else:
            serve_session(
                partial(
                    open_engine, engine, model, num_rows=rows, device=device, vllm=vllm_settings
                ),
                config,
                listener,
                shutdown_seconds=shutdown_seconds,
                log_requests=log_requests,
                when_ready=tell,
            )
    click.echo("mmgen: the server has ended", err=True)


def check_extra() -> None:
    """Refuse to go on without the packages of the extra."""
    missing = [name for name in EXTRA if find_spec(name) is None]
    if missing:
        raise PluginError(
            f"serving needs {', '.join(missing)}; install with pip install 'mmgen[serve]'"
        )
