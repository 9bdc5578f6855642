"""The shipped visual tokenizers, one run each, on the pictures that the model `mini` learns from.

`data` is a directory of packs, as for `mini`. The clock ends each training; the run is then in
`output/tokenizer`. Convolutions start as those of fsq, which has seen the same pictures: what is
trained anew is what is different about a tokenizer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from mmgen.train.tokenizer_config import TokenizerTrainConfig
from recipes.packs import tokenizer_pictures

__all__ = [
    "bsq",
    "continuous",
    "glfq",
    "lfq",
    "ordered",
    "pvq",
    "rvq",
    "scales",
    "tokenizer_run",
    "vq",
]


def tokenizer_run(
    name: str,
    *,
    data: Path,
    output: Path,
    minutes: float,
    settings: Mapping[str, object],
    start_from: str | None = "fsq",
    lr: float = 1e-3,
) -> TokenizerTrainConfig:
    """Return the training of one tokenizer; see `TokenizerTrainConfig` for what else can be set."""
    return TokenizerTrainConfig(
        tokenizer=name,
        settings=settings,
        start_from=start_from,
        sources=tokenizer_pictures(data),
        output=output,
        num_steps=100_000,
        max_minutes=minutes,
        lr=lr,
    )


def continuous(
    *, data: Path, output: Path = Path("runs/continuous"), minutes: float = 8.0
) -> TokenizerTrainConfig:
    """Return an autoencoder without a codebook, for `mmgen tokenizer bridge`."""
    return tokenizer_run(
        "continuous", data=data, output=output, minutes=minutes, settings={"min_psnr": 20.0}
    )


def ordered(
    *, data: Path, output: Path = Path("runs/ordered"), minutes: float = 90.0
) -> TokenizerTrainConfig:
    """Return the run of the tokenizer `ordered`, which begins with principal components."""
    run = tokenizer_run(
        "ordered",
        data=data,
        output=output,
        minutes=minutes,
        settings={"min_psnr": 17.5},
        start_from=None,
    )
    return replace(run, ema_decay=0.995, lr=1.5e-3)


def scales(
    *, data: Path, output: Path = Path("runs/scales"), minutes: float = 14.0
) -> TokenizerTrainConfig:
    """Return the run of the tokenizer `scales`."""
    run = tokenizer_run(
        "scales", data=data, output=output, minutes=minutes, settings={"min_psnr": 20.0}
    )
    # Some hundred steps: an average over more would still hold the start.
    return replace(run, ema_decay=0.99)


def caption(
    *, data: Path, output: Path = Path("runs/caption"), minutes: float = 45.0
) -> TokenizerTrainConfig:
    """Return the run of the tokenizer `caption`, which begins as `ordered` ended."""
    run = tokenizer_run(
        "caption",
        data=data,
        output=output,
        minutes=minutes,
        settings={"min_psnr": 17.5},
        start_from="ordered",
    )
    return replace(run, ema_decay=0.99)


def vq(*, data: Path, output: Path = Path("runs/vq"), steps: int = 900) -> TokenizerTrainConfig:
    """Return the run of the tokenizer `vq`: one codebook."""
    run = _grid_run("vq", data, output, steps, {"entropy": 0.005})
    return replace(run, sources=tokenizer_pictures(data), lr=1e-3, ema_decay=0.99)


def rvq(*, data: Path, output: Path = Path("runs/rvq"), steps: int = 280) -> TokenizerTrainConfig:
    """Return the run of the tokenizer `rvq`: four codebooks, each for what is left over."""
    return _grid_run("rvq", data, output, steps, {})


def pvq(*, data: Path, output: Path = Path("runs/pvq"), steps: int = 320) -> TokenizerTrainConfig:
    """Return the run of the tokenizer `pvq`: four codebooks side by side."""
    return _grid_run("pvq", data, output, steps, {"entropy": 0.005})


def lfq(*, data: Path, output: Path = Path("runs/lfq"), steps: int = 320) -> TokenizerTrainConfig:
    """Return the run of the tokenizer `lfq`: 18 bits, spelled as two codes."""
    return _grid_run("lfq", data, output, steps, {"diversity": 2.0})


def bsq(*, data: Path, output: Path = Path("runs/bsq"), steps: int = 320) -> TokenizerTrainConfig:
    """Return the run of the tokenizer `bsq`: 18 bits on the sphere, spelled as two codes."""
    return _grid_run("bsq", data, output, steps, {"entropy": 0.01})


def glfq(*, data: Path, output: Path = Path("runs/glfq"), steps: int = 200) -> TokenizerTrainConfig:
    """Return the run of the tokenizer `glfq`: four groups of 8 bits."""
    return _grid_run("glfq", data, output, steps, {})


def _grid_run(
    name: str, data: Path, output: Path, steps: int, settings: Mapping[str, object]
) -> TokenizerTrainConfig:
    """Return a run counted in steps: a busy machine takes longer and ends up with the same."""
    settings = {"min_psnr": 17.0, **settings}
    run = tokenizer_run(name, data=data, output=output, minutes=1.0, settings=settings, lr=1.5e-3)
    # Few steps do not wait for thousands of photographs to be read: one pack stands for all.
    emoji, _, flowers, *_ = run.sources
    return replace(
        run,
        sources=(emoji, replace(flowers, weight=0.15)),
        num_steps=steps,
        max_minutes=None,
        batch_size=16,
        ema_decay=0.98,
    )
