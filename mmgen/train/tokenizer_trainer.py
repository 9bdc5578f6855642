"""Trains any visual tokenizer that has something to train, on pictures held in memory.

One loop for every plugin: the plugin brings its network and any loss terms of its own, this file
brings reconstruction losses, the schedule, averaged weights and exact resumption.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from mmgen.errors import CheckpointError
from mmgen.visual_tokenizer import AbstractVisualTokenizer, TrainingOutput

__all__ = ["TokenizerTrainConfig", "pyramid_loss", "train_tokenizer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerTrainConfig:
    """How to train a tokenizer's network."""

    num_steps: int = 3000
    """Steps, unless `max_minutes` ends the run first."""
    max_minutes: float | None = None
    """Wall-clock budget in minutes over all runs; the schedule then follows the clock."""
    batch_size: int = 32
    """Pictures a step."""
    lr: float = 2e-3
    """Peak learning rate of AdamW."""
    warmup: float = 0.02
    """Share of the run in which the rate rises."""
    weight_decay: float = 0.01
    """Decoupled weight decay."""
    max_shift: int = 4
    """Pictures are shifted by up to so many pixels, the border repeated."""
    ema_decay: float = 0.998
    """Decay a step of the averaged weights, which are the ones saved."""
    grad_clip: float = 1.0
    """Largest norm of the gradient."""
    checkpoint_every: int = 250
    """Steps between checkpoints."""
    log_every: int = 25
    """Steps between log lines."""
    seed: int = 0
    """Seeds the weights, the order of pictures and the shifts."""

    def __post_init__(self) -> None:
        if self.num_steps < 1 or self.batch_size < 1:
            raise ValueError(f"num_steps and batch_size must be positive, got {self}")
        if self.max_minutes is not None and self.max_minutes <= 0:
            raise ValueError(f"max_minutes must be positive, got {self.max_minutes}")


def pyramid_loss(reconstruction: Tensor, images: Tensor, *, num_levels: int = 3) -> Tensor:
    """Mean absolute plus squared error over a pyramid of halved sizes, and of edges at full size.

    Coarse levels keep colours right over areas, the edge term keeps outlines sharp.

    Args:
        reconstruction: `[batch, 3, height, width]`.
        images: the same shape, in 0..1.
    """
    error = reconstruction - images
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    total = error.square().mean() * 4 + edges * 0.5
    for level in range(num_levels):
        total = total + error.abs().mean()
        if level + 1 < num_levels:
            error = functional.avg_pool2d(error, 2)
    return total


def train_tokenizer(
    tokenizer: AbstractVisualTokenizer,
    config: TokenizerTrainConfig,
    pictures: Tensor,
    weights: Tensor,
    output: Path,
    *,
    on_log: Callable[[Mapping[str, float]], None] = lambda record: None,
) -> None:
    """Train `tokenizer` in place, resuming from `output`, and save it to `output/tokenizer`.

    Args:
        pictures: uint8 `[num_pictures, 3, height, width]`.
        weights: how often each is drawn, `[num_pictures]`, any scale.
        on_log: gets `step`, `loss`, `psnr`, `codes_used`, `images_per_second`, `progress`.

    Raises:
        CheckpointError: `output` holds a run with another config.
    """
    network = tokenizer.network().train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(
        network.parameters(),
        lr=config.lr,
        weight_decay=config.weight_decay,
        betas=(0.9, 0.98),
        fused=True,
    )
    averaged = {name: value.detach().clone() for name, value in network.named_parameters()}
    output.mkdir(parents=True, exist_ok=True)
    step, elapsed = _restore(output, config, network, optimizer, averaged)
    codebook_size = sum(tokenizer.spec.codebook_sizes)
    start = time.monotonic() - elapsed
    seen = torch.zeros(codebook_size, dtype=torch.bool)
    mark = time.monotonic()
    progress = _progress(config, step, elapsed)
    while progress < 1.0:
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        images = _batch(pictures, weights, config, generator)
        for group in optimizer.param_groups:
            group["lr"] = config.lr * _rate(progress, config.warmup)
        result = network(images)
        assert isinstance(result, TrainingOutput)
        loss = pyramid_loss(result.reconstruction, images)
        for term in result.losses.values():
            loss = loss + term
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), config.grad_clip)
        optimizer.step()
        decay = min(config.ema_decay, (1 + step) / (10 + step))
        with torch.no_grad():
            for name, value in network.named_parameters():
                averaged[name].lerp_(value, 1 - decay)
        seen[result.codes[..., 0].flatten()] = True
        step += 1
        elapsed = time.monotonic() - start
        progress = _progress(config, step, elapsed)
        if step % config.log_every == 0 or progress >= 1.0:
            error = (result.reconstruction.detach().clamp(0, 1) - images).square()
            psnr = -10 * error.mean(dim=(1, 2, 3)).clamp_min(1e-10).log10().mean()
            now = time.monotonic()
            speed = config.log_every * config.batch_size / (now - mark)
            record = {
                "step": step,
                "loss": loss.item(),
                "psnr": psnr.item(),
                "codes_used": seen.float().mean().item(),
                "images_per_second": speed,
                "progress": progress,
            }
            with (output / "log.jsonl").open("a", encoding="utf-8") as log:
                log.write(json.dumps(record) + "\n")
            on_log(record)
            seen.zero_()
            mark = now
        if step % config.checkpoint_every == 0 or progress >= 1.0:
            _save(output, config, network, optimizer, averaged, step, elapsed)
    with torch.no_grad():
        for name, value in network.named_parameters():
            value.copy_(averaged[name])
    network.eval()
    (output / "tokenizer").mkdir(exist_ok=True)
    tokenizer.save(output / "tokenizer")


def _progress(config: TokenizerTrainConfig, step: int, elapsed: float) -> float:
    by_step = step / config.num_steps
    if config.max_minutes is None:
        return by_step
    return max(by_step, elapsed / 60 / config.max_minutes)


def _rate(progress: float, warmup: float) -> float:
    """Linear rise, then half a cosine down to a fiftieth."""
    if progress < warmup:
        return (progress + 1e-3) / (warmup + 1e-3)
    return 0.02 + 0.98 * (1 + math.cos(math.pi * min(1.0, progress))) / 2


def _batch(
    pictures: Tensor, weights: Tensor, config: TokenizerTrainConfig, generator: torch.Generator
) -> Tensor:
    chosen = torch.multinomial(weights, config.batch_size, replacement=True, generator=generator)
    images = pictures[chosen].to(torch.float32) / 255
    if config.max_shift:
        height, width = images.shape[-2:]
        reach = config.max_shift
        offsets = torch.randint(0, 2 * reach + 1, (2,), generator=generator).tolist()
        padded = functional.pad(images, (reach, reach, reach, reach), mode="replicate")
        images = padded[..., offsets[0] : offsets[0] + height, offsets[1] : offsets[1] + width]
    return images.contiguous(memory_format=torch.channels_last)


def _save(
    output: Path,
    config: TokenizerTrainConfig,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    averaged: Mapping[str, Tensor],
    step: int,
    elapsed: float,
) -> None:
    tensors = {f"network.{name}": value for name, value in network.named_parameters()}
    tensors |= {f"averaged.{name}": value for name, value in averaged.items()}
    for name, value in network.named_parameters():
        for key, moment in optimizer.state[value].items():
            tensors[f"optimizer.{name}.{key}"] = moment
    metadata = {"step": str(step), "elapsed": str(elapsed), "config": json.dumps(asdict(config))}
    temporary = output / "state.safetensors.part"
    contiguous = {name: value.detach().contiguous() for name, value in tensors.items()}
    save_file(contiguous, temporary, metadata)
    os.replace(temporary, output / "state.safetensors")


def _restore(
    output: Path,
    config: TokenizerTrainConfig,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    averaged: dict[str, Tensor],
) -> tuple[int, float]:
    path = output / "state.safetensors"
    if not path.exists():
        return 0, 0.0
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    stored = json.loads(metadata["config"])
    changed = [key for key, value in asdict(config).items() if stored.get(key) != value]
    if changed:
        raise CheckpointError(
            f"{output} holds a run with another config: {changed[0]} was {stored.get(changed[0])!r} "
            f"and is now {asdict(config)[changed[0]]!r}; choose another output or the old value"
        )
    tensors = load_file(path)
    with torch.no_grad():
        for name, value in network.named_parameters():
            value.copy_(tensors[f"network.{name}"])
            averaged[name].copy_(tensors[f"averaged.{name}"])
            prefix = f"optimizer.{name}."
            optimizer.state[value] = {
                key.removeprefix(prefix): moment.clone()
                for key, moment in tensors.items()
                if key.startswith(prefix)
            }
    return int(metadata["step"]), float(metadata["elapsed"])
