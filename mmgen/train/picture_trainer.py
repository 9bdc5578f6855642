"""The one loop that learns from pictures held in memory: tokenizers and their teachers.

A task brings a network and its loss; this file brings the schedule, averaged weights, records and
exact resumption.
"""

from __future__ import annotations

import math
import threading
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from mmgen.stopping import stop_signals
from mmgen.train.adversary import Adversary
from mmgen.train.optim import run_progress
from mmgen.train.overrides import to_plain
from mmgen.train.picture_config import AbstractPictureTrainConfig
from mmgen.train.progress import AbstractProgress
from mmgen.train.records import RunRecords
from mmgen.train.state import (
    Counters,
    check_same_config,
    latest_state,
    read_state,
    restore_state,
    save_state,
)
from mmgen.train.training_pictures import Batch, TrainingPictures
from mmgen.visual_tokenizer import Resize

__all__ = ["AbstractPictureTask", "is_picture_run_finished", "train_on_pictures"]


class AbstractPictureTask(ABC):
    """A network that learns from pictures: its loss, what is told of it, and its result."""

    result: ClassVar[str]
    """Folder in the run's directory for what was learned."""
    network: nn.Module
    """What is trained."""
    size: tuple[int, int]
    """Height and width in pixels of the pictures."""
    resize: Resize
    """What happens to pictures of another size."""
    needs_captions: bool
    """Whether pictures without a single caption are refused."""
    adversary: Adversary | None = None
    """What learns against the network, for a task that has one; its state is kept with the run."""

    def begin(self, pictures: TrainingPictures, seed: int) -> None:  # noqa: B027
        """Look at the pictures before the first step, for weights that start from data."""

    @abstractmethod
    def loss(self, batch: Batch, progress: float) -> Tensor:
        """Return what to lower, and note what `figures` tells.

        Args:
            batch: pictures and captions.
            progress: how much of the run is done, 0..1.
        """

    def answer(self, batch: Batch) -> None:  # noqa: B027
        """Let the adversary learn from the batch of the step just taken, if there is one."""

    @abstractmethod
    def figures(self) -> dict[str, float]:
        """Return what to tell of the steps since the last call, by name."""

    @abstractmethod
    def save(self, directory: Path) -> None:
        """Write what was learned into an existing directory."""


def is_picture_run_finished(config: AbstractPictureTrainConfig, result: str) -> bool:
    """Return whether the run of this config is complete, its result being in a folder of that name.

    Raises:
        CheckpointError: `config.output` holds a run with other settings.
    """
    state = latest_state(config.output / "state")
    if state is None or not (config.output / result).is_dir():
        return False
    stored = read_state(state)
    check_same_config(stored["config"], to_plain(config), state)
    done = run_progress(stored["step"], stored["elapsed"], config.num_steps, config.max_minutes)
    return done >= 1.0


def train_on_pictures(
    config: AbstractPictureTrainConfig, task: AbstractPictureTask, progress: AbstractProgress
) -> bool:
    """Train from the newest state, or from the start, and save to `config.output/RESULT`.

    Ctrl-C or SIGTERM ends the run after the current step, with its state saved.

    Returns:
        Whether the run is complete; otherwise it was asked to stop, and can be resumed.

    Raises:
        CheckpointError: `config.output` holds a run with other settings.
        DataError: the sources cannot be opened or hold nothing to learn from.
    """
    trainer = _PictureTrainer(config, task)
    pictures = TrainingPictures.load(
        config.sources,
        progress,
        size=task.size,
        resize=task.resize,
        needs_captions=task.needs_captions,
    )
    trainer.begin(pictures)
    with stop_signals() as stop:
        return trainer.run(pictures, stop, progress)


class _PictureTrainer:
    """A task's network with all that changes while it is trained."""

    def __init__(self, config: AbstractPictureTrainConfig, task: AbstractPictureTask) -> None:
        self.config = config
        self.task = task
        self.network = task.network.train()
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(),
            lr=config.lr,
            weight_decay=config.weight_decay,
            betas=(0.9, 0.98),
            fused=True,
        )
        adversary = task.adversary
        self.optimizers: list[torch.optim.Optimizer] = [self.optimizer]
        self.stated = self.network
        if adversary is not None:
            self.optimizers.append(adversary.optimizer)
            parts = {"network": self.network, "critic": adversary.critic}
            self.stated = nn.ModuleDict(parts)
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
                network=self.stated,
                averaged=self.averaged,
                optimizers=self.optimizers,
                config=to_plain(config),
            )
            self.step, self.elapsed = counters.step, counters.elapsed
        self._clock = time.monotonic() - self.elapsed

    def begin(self, pictures: TrainingPictures) -> None:
        """Let the task look at the pictures, unless the run goes on from a state."""
        if self.step:
            return
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed)
            self.task.begin(pictures, self.config.seed)
        with torch.no_grad():
            for name, value in self.network.named_parameters():
                self.averaged[name].copy_(value)

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
        mark = time.monotonic()
        try:
            while self.share_done < 1.0 and not stop.is_set():
                batch = self._batch(pictures)
                lr = config.lr * _rate(self.share_done, config.warmup)
                loss = self._take_step(batch, lr)
                self.elapsed = time.monotonic() - self._clock
                is_last = self.share_done >= 1.0
                if self.step % config.log_every == 0 or is_last:
                    now = time.monotonic()
                    told = {
                        "loss": loss,
                        **self.task.figures(),
                        "images_per_second": config.log_every * config.batch_size / (now - mark),
                    }
                    rest = {"lr": lr, "progress": self.share_done}
                    records.write({"kind": "train", "step": self.step, **told, **rest})
                    detail = ", ".join(
                        f"{name.replace('_', ' ')} {value:.3g}" for name, value in told.items()
                    )
                    progress.update(self.share_done, f"step {self.step}: {detail}")
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
        result = config.output / self.task.result
        result.mkdir(exist_ok=True)
        self.task.save(result)
        return True

    def _take_step(self, batch: Batch, lr: float) -> float:
        # What a network draws at random follows from seed and step alone, as the batch does.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed * 1_000_003 + self.step)
            loss = self.task.loss(batch, self.share_done)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.network.parameters(), self.config.grad_clip)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self.task.answer(batch)
        # The average of a young run would otherwise be mostly its random start.
        decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, value in self.network.named_parameters():
                self.averaged[name].lerp_(value, 1 - decay)
        self.step += 1
        return loss.item()

    def _batch(self, pictures: TrainingPictures) -> Batch:
        """Return the pictures of this step, which follow from the seed and the step alone."""
        config = self.config
        return pictures.batch(
            config.batch_size,
            max_shift=config.max_shift,
            caption_dropout=config.caption_dropout,
            generator=torch.Generator().manual_seed(config.seed * 1_000_003 + self.step),
        )

    def _save(self) -> None:
        save_state(
            self.config.output / "state",
            network=self.stated,
            averaged=self.averaged,
            optimizers=self.optimizers,
            counters=Counters(step=self.step, elapsed=self.elapsed, loader={}),
            config=to_plain(self.config),
            keep=1,
        )


def _rate(progress: float, warmup: float) -> float:
    """Return the share of the peak rate: a linear rise, then half a cosine to a fiftieth."""
    if progress < warmup:
        return (progress + 1e-3) / (warmup + 1e-3)
    return 0.02 + 0.98 * (1 + math.cos(math.pi * min(1.0, progress))) / 2
