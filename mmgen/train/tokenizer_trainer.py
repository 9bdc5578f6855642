"""Trains any visual tokenizer that has something to train, on pictures held in memory.

One loop for every plugin: the plugin brings its network and any loss terms of its own, this file
brings reconstruction losses, the schedule, averaged weights and exact resumption.
"""

from __future__ import annotations

import math
import threading
import time
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from mmgen.errors import PluginError
from mmgen.plugins import load_visual_tokenizer, load_visual_tokenizer_class
from mmgen.train.optim import run_progress
from mmgen.train.overrides import to_plain
from mmgen.train.progress import AbstractProgress, SilentProgress
from mmgen.train.records import RunRecords
from mmgen.train.state import (
    Counters,
    check_same_config,
    latest_state,
    read_state,
    restore_state,
    save_state,
)
from mmgen.train.stopping import stop_signals
from mmgen.train.tokenizer_config import TokenizerTrainConfig
from mmgen.train.training_pictures import Batch, TrainingPictures
from mmgen.visual_tokenizer import AbstractVisualTokenizer, TrainingOutput

__all__ = [
    "is_tokenizer_finished",
    "pyramid_loss",
    "start_from",
    "train_tokenizer",
]


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


def is_tokenizer_finished(config: TokenizerTrainConfig) -> bool:
    """Return whether the run of this config is complete.

    Raises:
        CheckpointError: `config.output` holds a run with other settings.
    """
    state = latest_state(config.output / "state")
    if state is None or not (config.output / "tokenizer").is_dir():
        return False
    stored = read_state(state)
    check_same_config(stored["config"], to_plain(config), state)
    done = run_progress(stored["step"], stored["elapsed"], config.num_steps, config.max_minutes)
    return done >= 1.0


def train_tokenizer(
    config: TokenizerTrainConfig, *, progress: AbstractProgress | None = None
) -> bool:
    """Train from the newest state, or from the start, and save to `config.output/tokenizer`.

    Ctrl-C or SIGTERM ends the run after the current step, with its state saved.

    Returns:
        Whether the run is complete; otherwise it was asked to stop, and can be resumed.

    Raises:
        CheckpointError: `config.output` holds a run with other settings.
        PluginError: no such plugin, or it has nothing to train.
    """
    plugin = load_visual_tokenizer_class(config.tokenizer)
    if not plugin.is_trainable:
        raise PluginError(f"the visual tokenizer {config.tokenizer} has nothing to train")
    progress = progress or SilentProgress()
    tokenizer = plugin.untrained(config.settings, seed=config.seed)
    if config.start_from is not None:
        taken, total = start_from(tokenizer, config.start_from)
        progress.note(f"{taken} of {total} tensors start as {config.start_from} has them")
    trainer = _TokenizerTrainer(config, tokenizer)
    pictures = TrainingPictures.load(config.sources, trainer.tokenizer.spec, progress)
    with stop_signals() as stop:
        return trainer.run(pictures, stop, progress)


def start_from(tokenizer: AbstractVisualTokenizer, origin: str) -> tuple[int, int]:
    """Copy into a tokenizer every weight of another that has the same name and shape.

    A half that is convolutions and something more holds them as `convolutions`, a word that is left
    out of the comparison.

    Args:
        tokenizer: the one to train.
        origin: a plugin by name, as it ships, or a folder that a tokenizer of any plugin with the
            same file was saved to.

    Returns:
        How many tensors were copied, and how many the tokenizer has.

    Raises:
        PluginError: there is no such tokenizer, or it shares no tensor.
    """
    if "/" in origin:
        file = Path(origin) / "tokenizer.safetensors"
        if not file.is_file():
            raise PluginError(f"no tokenizer to start from in {origin}: {file.name} is missing")
        theirs = load_file(file)
    else:
        theirs = dict(load_visual_tokenizer(origin).network().state_dict())
    ours = tokenizer.network().state_dict()
    names = {name.replace(".convolutions.", "."): name for name in ours}
    shared = {
        names[short]: tensor
        for name, tensor in theirs.items()
        if (short := name.replace(".convolutions.", ".")) in names
        and ours[names[short]].shape == tensor.shape
    }
    if not shared:
        raise PluginError(f"{origin} shares no weight with the tokenizer to train; start fresh")
    with torch.no_grad():
        for name, tensor in shared.items():
            ours[name].copy_(tensor)
    return len(shared), len(ours)


class _TokenizerTrainer:
    """A tokenizer's network with all that changes while it is trained."""

    def __init__(self, config: TokenizerTrainConfig, tokenizer: AbstractVisualTokenizer) -> None:
        self.config = config
        self.tokenizer = tokenizer
        self.network = tokenizer.network().train()
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(),
            lr=config.lr,
            weight_decay=config.weight_decay,
            betas=(0.9, 0.98),
            fused=True,
        )
        self.averaged = {
            name: value.detach().clone() for name, value in self.network.named_parameters()
        }
        self.step = 0
        self.elapsed = 0.0
        (config.output / "state").mkdir(parents=True, exist_ok=True)
        path = latest_state(config.output / "state")
        if path is not None:
            counters = restore_state(
                path,
                network=self.network,
                averaged=self.averaged,
                optimizers=[self.optimizer],
                config=to_plain(config),
            )
            self.step, self.elapsed = counters.step, counters.elapsed
        self._clock = time.monotonic() - self.elapsed

    @property
    def share_done(self) -> float:
        """How much of the run is done, 0..1."""
        return run_progress(self.step, self.elapsed, self.config.num_steps, self.config.max_minutes)

    def run(
        self, pictures: TrainingPictures, stop: threading.Event, progress: AbstractProgress
    ) -> bool:
        config = self.config
        records = RunRecords(config.output, step=self.step)
        self._clock = time.monotonic() - self.elapsed
        seen = torch.zeros(sum(self.tokenizer.spec.codebook_sizes), dtype=torch.bool)
        mark = time.monotonic()
        try:
            while self.share_done < 1.0 and not stop.is_set():
                batch = self._batch(pictures)
                lr = config.lr * _rate(self.share_done, config.warmup)
                result, loss = self._take_step(batch, lr)
                self.elapsed = time.monotonic() - self._clock
                self._note_codes(result.codes, seen)
                is_last = self.share_done >= 1.0
                if self.step % config.log_every == 0 or is_last:
                    now = time.monotonic()
                    record = {
                        "kind": "train",
                        "step": self.step,
                        "loss": loss,
                        "psnr": _psnr(result.reconstruction.detach(), batch.images),
                        "codes_used": seen.float().mean().item(),
                        "images_per_second": config.log_every * config.batch_size / (now - mark),
                        "lr": lr,
                        "progress": self.share_done,
                    }
                    records.write(record)
                    detail = ", ".join(
                        f"{name.replace('_', ' ')} {record[name]:.3g}"
                        for name in ("loss", "psnr", "codes_used", "images_per_second")
                    )
                    progress.update(self.share_done, f"step {self.step}: {detail}")
                    seen.zero_()
                    mark = now
                if self.step % config.checkpoint_every == 0:
                    self._save()
            self._save()
            records.draw()
        finally:
            records.close()
        if self.share_done < 1.0:
            return False
        with torch.no_grad():
            for name, value in self.network.named_parameters():
                value.copy_(self.averaged[name])
        self.network.eval()
        (config.output / "tokenizer").mkdir(exist_ok=True)
        self.tokenizer.save(config.output / "tokenizer")
        return True

    def _take_step(self, batch: Batch, lr: float) -> tuple[TrainingOutput, float]:
        beside = [batch.captions] if self.tokenizer.spec.captions_used else []
        # What a network draws at random follows from seed and step alone, as the batch does.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed * 1_000_003 + self.step)
            result = self.network(batch.images, *beside)
        assert isinstance(result, TrainingOutput), "a tokenizer's network gives a TrainingOutput"
        loss = pyramid_loss(result.reconstruction, batch.images)
        for term in result.losses.values():
            loss = loss + term
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.network.parameters(), self.config.grad_clip)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        # The average of a young run would otherwise be mostly its random start.
        decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, value in self.network.named_parameters():
                self.averaged[name].lerp_(value, 1 - decay)
        self.step += 1
        return result, loss.item()

    def _batch(self, pictures: TrainingPictures) -> Batch:
        """Return the pictures of this step, which follow from the seed and the step alone."""
        config = self.config
        return pictures.batch(
            config.batch_size,
            max_shift=config.max_shift,
            caption_dropout=config.caption_dropout,
            generator=torch.Generator().manual_seed(config.seed * 1_000_003 + self.step),
        )

    def _note_codes(self, codes: Tensor, seen: Tensor) -> None:
        first = 0
        for book, size in enumerate(self.tokenizer.spec.codebook_sizes):
            seen[first + codes[..., book].flatten()] = True
            first += size

    def _save(self) -> None:
        save_state(
            self.config.output / "state",
            network=self.network,
            averaged=self.averaged,
            optimizers=[self.optimizer],
            counters=Counters(step=self.step, elapsed=self.elapsed, loader={}),
            config=to_plain(self.config),
            keep=1,
        )


def _rate(progress: float, warmup: float) -> float:
    """Return the share of the peak rate: a linear rise, then half a cosine to a fiftieth."""
    if progress < warmup:
        return (progress + 1e-3) / (warmup + 1e-3)
    return 0.02 + 0.98 * (1 + math.cos(math.pi * min(1.0, progress))) / 2


def _psnr(reconstruction: Tensor, images: Tensor) -> float:
    error = (reconstruction.clamp(0, 1) - images).square().mean(dim=(1, 2, 3))
    return float(-10 * error.clamp_min(1e-10).log10().mean())
