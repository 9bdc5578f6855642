"""`mmgen bench`: how fast things are here, as medians of runs that were made side by side."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import click

from mmgen.cli.app import Place, load_command
from mmgen.cli.bench_serve import bench_serve
from mmgen.errors import MmgenError, PluginError, SettingsError

__all__ = ["bench"]

HEAD_DIM = 64

_json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON instead of a table."
)
_model_option = click.option(
    "--model", help="Name or directory of the model; by default the one installed."
)


CHAT = Place("mmgen_chat.bench.command:bench_chat", "Measure the chat.", distribution="mmgen-chat")


class BenchGroup(click.Group):
    """The measurements, with the one that another distribution brings."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), "chat"])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name != "chat":
            return super().get_command(ctx, cmd_name)
        try:
            return load_command("mmgen bench chat", CHAT)
        except PluginError as error:
            # Help lists all measurements; only running this one needs what is missing.
            return _refused("chat", CHAT.summary, error)


@click.group(cls=BenchGroup)
def bench() -> None:
    """Measure speed and memory.

    Run these on a machine that does nothing else.
    """


bench.add_command(bench_serve)


@bench.command("generate")
@_model_option
@click.option(
    "--count",
    "counts",
    type=click.IntRange(min=1),
    multiple=True,
    default=(1, 16),
    show_default=True,
    help="Pictures at once; may be repeated.",
)
@click.option("--repeats", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--guidance", type=click.FloatRange(min=0), default=3.0, show_default=True)
@_json_option
def bench_generate(
    model: str | None, counts: tuple[int, ...], repeats: int, guidance: float, as_json: bool
) -> None:
    """Measure guided drawing beside a plain transformers loop over the same checkpoint.

    Both draw in turns, with the same settings. Needs transformers.
    """
    from dataclasses import asdict

    from mmgen.generate.bench import GenerationBenchConfig, measure_generation

    config = GenerationBenchConfig(counts=counts, repeats=repeats, guidance_scale=guidance)
    result = measure_generation(model, config)
    rows = [
        [
            str(speed.num_pictures),
            f"{speed.seconds:.2f}",
            f"{speed.plain_seconds:.2f}",
            f"{speed.ratio:.2f}",
            f"{speed.one_by_one_ratio:.2f}",
            f"{speed.codes_per_second:.0f}",
        ]
        for speed in result.speeds
    ]
    head = [
        "pictures at once",
        "mmgen s",
        "transformers s",
        "times faster",
        "than one by one",
        "codes per second",
    ]
    _show(head, rows, asdict(result), as_json)
    if not as_json:
        click.echo(
            f"\n{result.num_parameters / 1e6:.1f}M parameters, {result.num_threads} threads; at "
            f"{min(counts)} at once, {result.bandwidth_share:.0%} of the "
            f"{result.read_rate / 1e9:.1f} GB/s at which memory of that size is read here"
        )


@bench.command("vllm")
@_model_option
@click.option(
    "--count",
    "counts",
    type=click.IntRange(min=1),
    multiple=True,
    default=(1, 16),
    show_default=True,
    help="Pictures at once; may be repeated.",
)
@click.option("--repeats", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--guidance", type=click.FloatRange(min=0), default=3.0, show_default=True)
@click.option(
    "--compile",
    "compilation",
    type=click.Choice(["on", "off"]),
    default="on",
    show_default=True,
    help="Whether vLLM compiles the decoder; the first start then takes a minute.",
)
@_json_option
def bench_vllm(
    model: str | None,
    counts: tuple[int, ...],
    repeats: int,
    guidance: float,
    compilation: str,
    as_json: bool,
) -> None:
    """Measure guided drawing on vLLM beside transformers, and beside vLLM without guidance.

    All draw in turns, with the same settings, in float32. Needs vLLM.
    """
    from dataclasses import asdict

    from mmgen.generate.bench import GenerationBenchConfig
    from mmgen.generate.vllm_start import installed_vllm, prepare_vllm

    installed_vllm()
    with prepare_vllm():
        from mmgen.generate.vllm_bench import measure_vllm

        config = GenerationBenchConfig(counts=counts, repeats=repeats, guidance_scale=guidance)
        result = measure_vllm(model, config, compilation=compilation)
    rows = [
        [
            str(speed.num_pictures),
            f"{speed.seconds:.2f}",
            f"{speed.torch_seconds:.2f}",
            f"{speed.plain_seconds:.2f}",
            f"{speed.raw_seconds:.2f}",
            f"{speed.plain_ratio:.2f}",
            f"{speed.raw_ratio:.2f}",
            f"{speed.codes_per_second:.0f}",
        ]
        for speed in result.speeds
    ]
    head = [
        "pictures at once",
        "mmgen on vLLM s",
        "mmgen on torch s",
        "transformers s",
        "vLLM alone s",
        "times transformers",
        "share of vLLM alone",
        "codes per second",
    ]
    _show(head, rows, asdict(result), as_json)
    if not as_json:
        click.echo(
            f"\n{result.num_parameters / 1e6:.1f}M parameters, {result.num_threads} threads; "
            f"started in {result.start_seconds:.0f} s, {result.num_restarts} pairs restarted"
        )


@bench.command("tokenizer")
@click.argument("name")
@click.option(
    "--weights",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Directory of settings and weights; without it, what the plugin ships.",
)
@click.option(
    "--batch-size",
    "batch_sizes",
    type=click.IntRange(min=1),
    multiple=True,
    default=(1, 64),
    show_default=True,
    help="Pictures in a call; may be repeated.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0),
    default=2.0,
    show_default=True,
    help="Time spent on each measurement.",
)
@_json_option
def bench_tokenizer(
    name: str, weights: Path | None, batch_sizes: tuple[int, ...], seconds: float, as_json: bool
) -> None:
    """Measure how many pictures a second a visual tokenizer encodes and decodes."""
    from dataclasses import asdict

    from mmgen.cli.progress import watched
    from mmgen.evaluate.speed import tokenizer_speeds
    from mmgen.plugins import load_visual_tokenizer_class

    tokenizer = load_visual_tokenizer_class(name).load(weights)
    speeds = tokenizer_speeds(tokenizer, batch_sizes=batch_sizes, seconds=seconds, progress=watched)
    rows = [
        [speed.operation, str(speed.batch_size), f"{speed.images_per_second:.1f}"]
        for speed in speeds
    ]
    head = [name, "batch", "pictures per second"]
    _show(head, rows, {"tokenizer": name, "speeds": [asdict(s) for s in speeds]}, as_json)


@bench.command("batch")
@_model_option
@click.option(
    "--direction",
    "directions",
    type=click.Choice(["generate", "caption"]),
    multiple=True,
    default=("generate", "caption"),
    show_default=True,
    help="What jobs do; may be repeated.",
)
@click.option("--rows", type=click.IntRange(min=1), default=128, show_default=True)
@click.option("--repeats", type=click.IntRange(min=1), default=3, show_default=True)
@_json_option
def bench_batch(
    model: str | None,
    directions: tuple[Literal["generate", "caption"], ...],
    rows: int,
    repeats: int,
    as_json: bool,
) -> None:
    """Measure jobs beside the engine alone, beside a plain loop, and in two processes."""
    from dataclasses import asdict
    from functools import partial

    from mmgen.batch.bench import BatchBenchConfig, measure_batch

    config = BatchBenchConfig(num_rows=rows, repeats=repeats)
    tell = partial(click.echo, err=True)
    found = [measure_batch(item, model, config, on_step=tell) for item in directions]
    cells = [
        [
            item.direction,
            f"{item.rows_per_second:.1f}",
            f"{item.peak_rows_per_second:.1f}",
            f"{item.peak_share:.2f}",
            f"{item.loop_rows_per_second:.1f}",
            f"{item.loop_ratio:.1f}",
            f"{item.halves_ratio:.2f}",
        ]
        for item in found
    ]
    head = ["rows/s", "of jobs", "engine alone", "share", "one by one", "ratio", "2 processes"]
    _show(head, cells, {"batch": [asdict(item) for item in found]}, as_json)


@bench.command("start")
@_model_option
@click.option("--runs", type=click.IntRange(min=1), default=5, show_default=True)
@_json_option
def bench_start(model: str | None, runs: int, as_json: bool) -> None:
    """Measure the wait for help, a first picture and a first caption, each in a new process."""
    from dataclasses import asdict

    from mmgen.cli.progress import watched
    from mmgen.evaluate.speed import measure_starts

    starts = measure_starts(model, num_runs=runs, progress=watched)
    rows = [
        [start.name, str(start.num_runs), f"{start.seconds:.2f}", f"{start.peak_mib:.0f}"]
        for start in starts
    ]
    head = ["", "runs", "seconds", "peak MiB"]
    _show(head, rows, {"starts": [asdict(start) for start in starts]}, as_json)


@bench.command("train")
@click.option("--steps", type=click.IntRange(min=1), default=7, show_default=True)
@click.option("--rows", type=click.IntRange(min=1), default=16, show_default=True)
@click.option("--context-length", type=click.IntRange(min=128), default=256, show_default=True)
@click.option("--hidden-size", type=click.IntRange(min=1), default=320, show_default=True)
@click.option("--layers", type=click.IntRange(min=1), default=7, show_default=True)
@click.option(
    "--compile",
    "compiled",
    type=click.Choice(["on", "off"]),
    default="on",
    show_default=True,
    help="Whether our side is compiled; the first step then takes minutes.",
)
@_json_option
def bench_train(
    steps: int,
    rows: int,
    context_length: int,
    hidden_size: int,
    layers: int,
    compiled: Literal["on", "off"],
    as_json: bool,
) -> None:
    """Measure a training step beside a plain transformers step of the same size.

    Both take steps in turns on the same rows, with heads of 64 and a feed-forward layer of 2.7
    times the width. Needs transformers.
    """
    from dataclasses import asdict

    from mmgen.train.bench import TrainBenchConfig, bench_training

    if hidden_size % HEAD_DIM:
        raise SettingsError(f"--hidden-size must be a multiple of {HEAD_DIM}, got {hidden_size}")
    heads = hidden_size // HEAD_DIM
    result = bench_training(
        TrainBenchConfig(
            hidden_size=hidden_size,
            num_layers=layers,
            num_heads=heads,
            num_kv_heads=heads,
            intermediate_size=round(2.7 * hidden_size),
            context_length=context_length,
            rows=rows,
            num_steps=steps,
            compile=compiled,
        )
    )
    rows_shown = [
        ["mmgen", f"{result.tokens_per_second:,.0f}", f"{result.seconds:.3f}"],
        ["transformers", f"{result.plain_tokens_per_second:,.0f}", f"{result.plain_seconds:.3f}"],
    ]
    head = [f"{result.num_parameters / 1e6:.1f}M parameters", "tokens per second", "s per step"]
    _show(head, rows_shown, asdict(result), as_json)
    if not as_json:
        click.echo(
            f"\n{result.speedup:.2f} times as fast as transformers; "
            f"{result.matmul_share:.0%} of the {result.matmul_rate / 1e9:.0f} GFLOPS that a large "
            f"matrix product reaches here; optimizers take {result.optimizer_share:.0%}"
        )


def _refused(name: str, summary: str, error: MmgenError) -> click.Command:
    """Return a command that can only say why it cannot run."""

    def refuse(words: tuple[str, ...]) -> None:
        raise error

    words = click.Argument(["words"], nargs=-1, type=click.UNPROCESSED)
    return click.Command(
        name, callback=refuse, params=[words], short_help=summary, help=summary,
        context_settings={"ignore_unknown_options": True},
    )  # fmt: skip


def _show(
    head: Sequence[str], rows: Sequence[Sequence[str]], facts: Mapping[str, object], as_json: bool
) -> None:
    from mmgen.evaluate.report import table

    click.echo(json.dumps(facts) if as_json else table(head, rows))
