"""`mmgen bench chat`."""

from __future__ import annotations

import json
from functools import partial

import click

__all__ = ["bench_chat"]

_counted = partial(click.option, type=click.IntRange(min=1), show_default=True)


@click.command("chat")
@click.option("--model", help="Name or directory of the model; by default the chat's own.")
@_counted("--starts", default=5)
@_counted("--keys", default=100, help="Keys pressed while pictures are drawn.")
@_counted("--previews", default=30, help="Previews painted in each way of rendering.")
@_counted("--pictures", default=100, help="Pictures of a dialogue of twice as many turns.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def bench_chat(
    model: str | None, starts: int, keys: int, previews: int, pictures: int, as_json: bool
) -> None:
    """Measure the chat: start, echo while drawing, repaints, memory over a long dialogue.

    Each runs in a process of its own, in a pseudo-terminal.
    """
    from dataclasses import asdict

    from mmgen.evaluate.report import table
    from mmgen_chat.bench.measuring import ChatBenchConfig, measure_chat

    config = ChatBenchConfig(
        model=model, starts=starts, keys=keys, previews=previews, pictures=pictures
    )
    found = measure_chat(config, tell=partial(click.echo, err=True))
    if as_json:
        click.echo(json.dumps(asdict(found)))
        return
    memory = found.memory
    rows = [
        ["start to the first key's echo", f"{found.ready_seconds:.2f} s"],
        ["start to a loaded model", f"{found.loaded_seconds:.2f} s"],
        ["key to echo while drawing", f"{found.echo_seconds * 1000:.0f} ms"],
        ["at the 95th percentile", f"{found.echo_p95_seconds * 1000:.0f} ms"],
    ]
    rows += [
        [
            f"one preview as {cost.graphics}",
            f"{cost.cpu_seconds * 1000:.1f} ms of CPU, {cost.num_bytes / 1024:.1f} KiB",
        ]
        for cost in found.repaints
    ]
    rows += [
        ["memory at the start", f"{memory.start_mib:.0f} MiB"],
        [
            f"after {memory.num_turns} turns with {memory.num_pictures} pictures",
            f"{memory.end_mib:.0f} MiB",
        ],
    ]
    click.echo(table(["the chat", ""], rows))
