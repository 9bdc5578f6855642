"""`mmgen bench serve`: what serving costs, beside the same session without a server."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from mmgen.cli.engines import engine_option

if TYPE_CHECKING:
    from mmgen.generate.engines import EngineName

__all__ = ["bench_serve"]


@click.command("serve")
@click.option("--model", help="Name or directory of the model; by default the one installed.")
@engine_option
@click.option("--repeats", type=click.IntRange(min=1), default=10, show_default=True)
@click.option(
    "--clients",
    type=click.IntRange(min=1),
    multiple=True,
    default=(16,),
    show_default=True,
    help="Clients at once; may be repeated.",
)
@click.option(
    "--rounds",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="Pictures per client, one after another.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def bench_serve(
    model: str | None,
    engine: EngineName,
    repeats: int,
    clients: tuple[int, ...],
    rounds: int,
    as_json: bool,
) -> None:
    """Measure a server beside the same session in this process.

    Both draw in turns, with the same settings. Needs mmgen[serve].
    """
    from mmgen.cli.serve import check_extra

    check_extra()
    from mmgen.evaluate.report import table
    from mmgen.serve.bench import ServeBenchConfig, measure_serving

    config = ServeBenchConfig(repeats=repeats, clients=clients, rounds=rounds, engine=engine)
    result = measure_serving(model, config)
    rows = [
        ["one picture, session", f"{result.session_seconds:.3f} s"],
        ["one picture, server", f"{result.seconds:.3f} s"],
        [
            "of which the server's own",
            f"{result.overhead_seconds * 1000:.1f} ms, {result.overhead_share:.1%} of the engine's",
        ],
        ["first preview", f"{result.first_preview_seconds:.3f} s"],
    ]
    for load in result.loads:
        rows += [
            [
                f"{load.num_clients} clients at once",
                f"{load.images_per_second:.2f} pictures per second, {load.ratio:.2f} of the "
                f"session's {load.session_images_per_second:.2f}",
            ],
            ["longest wait among them", f"{load.slowest_seconds:.2f} s"],
        ]
    if as_json:
        click.echo(json.dumps(asdict(result)))
    else:
        click.echo(table([f"{result.engine} engine", "median"], rows))
