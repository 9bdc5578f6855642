"""The training of codes that say what pictures show, as one frozen stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from mmgen.errors import SettingsError
from mmgen.train.progress import AbstractProgress
from mmgen.train.sources import WeightedSource
from mmgen.train.stage import AbstractStage

__all__ = ["MeaningTrainConfig"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MeaningTrainConfig(AbstractStage):
    """Give what a namer sees a few codes; it ends in `output/meaning`, the namer included.

    Each picture is looked at a few times, moved about, and codes are learned from what was seen,
    which takes minutes. A run that is stopped begins anew.
    """

    namer: Path
    """Folder of a network that names pictures."""
    sources: tuple[WeightedSource, ...]
    """The pictures; their captions are their names, as the namer learned them."""
    output: Path
    """Directory of the run."""
    settings: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    """Fields of `MeaningSettings`; empty for its defaults."""
    num_views: int = 5
    """How often each picture is looked at on average; the first time as it is."""
    num_steps: int = 1000
    """Steps of learning."""
    batch_size: int = 768
    """Views a step."""
    lr: float = 3e-3
    """Peak learning rate of AdamW."""
    weight_decay: float = 0.02
    """Decoupled weight decay."""
    noise: float = 0.15
    """Deviation of what is added to features, as a share of their own."""
    taught_share: float = 0.5
    """Share of what is to be told that comes from the namer; the rest are the true names."""
    side: int = 64
    """Height and width in pixels of the pictures as they are held in memory."""
    seed: int = 0
    """Seeds the weights, the views and their order."""

    def __post_init__(self) -> None:
        for name in ("num_views", "num_steps", "batch_size", "side"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} must be 1 or more, got {getattr(self, name)}")
        if not self.sources:
            raise SettingsError("sources must name at least one source of pictures")
        if not self.lr > 0 or self.weight_decay < 0 or self.noise < 0:
            raise SettingsError(
                "lr must be positive and weight_decay and noise not negative, got "
                f"{self.lr}, {self.weight_decay} and {self.noise}"
            )
        if not 0 <= self.taught_share <= 1:
            raise SettingsError(f"taught_share must lie in 0..1, got {self.taught_share}")

    @property
    def title(self) -> str:
        return "learn codes of what pictures show"

    @property
    def is_finished(self) -> bool:
        from mmgen.train.stages import was_finished

        return was_finished(self, self.output)

    def run(self, progress: AbstractProgress) -> bool:
        from mmgen.train.meaning_trainer import train_meaning

        return train_meaning(self, progress=progress)
