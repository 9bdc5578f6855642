"""Everything that settles how a network learns from pictures, whatever the network is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mmgen.errors import SettingsError
from mmgen.train.sources import WeightedSource
from mmgen.train.stage import AbstractStage

__all__ = ["AbstractPictureTrainConfig"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AbstractPictureTrainConfig(AbstractStage):
    """One complete training from pictures held in memory."""

    sources: tuple[WeightedSource, ...]
    """The pictures; all are held in memory as bytes, in the size that the network learns from."""
    output: Path
    """Directory of the run: state, logs and, at the end, a folder of what was learned."""
    num_steps: int = 3000
    """Steps, unless `max_minutes` ends the run first."""
    max_minutes: float | None = None
    """Wall-clock budget over all resumptions; the schedule then follows whichever is further on."""
    batch_size: int = 32
    """Pictures a step."""
    lr: float = 2e-3
    """Peak learning rate of AdamW."""
    warmup: float = 0.02
    """Share of the run in which the rate rises; after it, half a cosine down to a fiftieth."""
    weight_decay: float = 0.01
    """Decoupled weight decay."""
    max_shift: int = 4
    """Pictures are shifted by up to so many pixels, their border repeated."""
    caption_dropout: float = 0.3
    """Share of captions left out, for a tokenizer that reads captions: it then works without."""
    ema_decay: float = 0.998
    """Decay a step of the averaged weights, which are the ones saved."""
    grad_clip: float = 1.0
    """Largest norm of the gradient."""
    checkpoint_every: int = 250
    """Steps between saved states, the most that a killed run loses."""
    log_every: int = 25
    """Steps between log records."""
    seed: int = 0
    """Seeds the weights, the order of pictures and the shifts."""

    def __post_init__(self) -> None:
        for name in ("num_steps", "batch_size", "checkpoint_every", "log_every"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} must be 1 or more, got {getattr(self, name)}")
        if not self.sources:
            raise SettingsError("sources must name at least one source of pictures")
        if self.max_minutes is not None and not self.max_minutes > 0:
            raise SettingsError(f"max_minutes must be positive, got {self.max_minutes}")
        if self.max_shift < 0:
            raise SettingsError(f"max_shift must not be negative, got {self.max_shift}")
        if not self.lr > 0 or not self.grad_clip > 0 or self.weight_decay < 0:
            raise SettingsError(
                "lr and grad_clip must be positive and weight_decay not negative, got "
                f"{self.lr}, {self.grad_clip} and {self.weight_decay}"
            )
        if not 0 <= self.caption_dropout <= 1:
            raise SettingsError(f"caption_dropout must lie in 0..1, got {self.caption_dropout}")
        if not 0 <= self.ema_decay < 1 or not 0 <= self.warmup < 1:
            raise SettingsError(
                f"ema_decay and warmup must lie in 0..1, got {self.ema_decay} and {self.warmup}"
            )
