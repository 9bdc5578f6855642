"""The training of a visual tokenizer, as one frozen stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from mmgen.errors import SettingsError
from mmgen.train.picture_config import AbstractPictureTrainConfig
from mmgen.train.progress import AbstractProgress

__all__ = ["TokenizerTrainConfig"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerTrainConfig(AbstractPictureTrainConfig):
    """One complete training of a tokenizer's network; it ends in `output/tokenizer`."""

    tokenizer: str
    """The plugin, by name."""
    settings: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    """What the plugin's `untrained` takes; empty for its own defaults."""
    start_from: str | None = None
    """A tokenizer, by name or as a folder that `save` wrote: every weight whose name and shape it
    shares is taken from there. The rest starts fresh."""
    perceptual: Path | None = None
    """Folder of a network that pictures are compared by as well: a teacher that `mmgen train`
    wrote, or a vision model of `transformers`. mmgen ships none; without one, pixels decide."""
    perceptual_weight: float = 0.5
    """Of that comparison, beside the pixels."""
    adversarial_weight: float = 0.0
    """Of passing for a picture before a critic, times the pull of the pixels; 0 for no critic."""
    adversarial_start: float = 0.4
    """Share of the run after which critic and network begin to learn from one another."""
    critic_width: int = 32
    """Channels of the critic's first layer."""
    critic_lr: float = 5e-4
    """Learning rate of the critic's own optimizer."""

    def __post_init__(self) -> None:
        # Zero arguments would look for the class that `slots` has replaced.
        super(TokenizerTrainConfig, self).__post_init__()
        if self.perceptual_weight < 0 or self.adversarial_weight < 0:
            raise SettingsError(
                "perceptual_weight and adversarial_weight must not be negative, got "
                f"{self.perceptual_weight} and {self.adversarial_weight}"
            )
        if not 0 <= self.adversarial_start < 1:
            raise SettingsError(f"adversarial_start must lie in 0..1, got {self.adversarial_start}")
        if self.critic_width < 1 or not self.critic_lr > 0:
            raise SettingsError(
                "critic_width and critic_lr must be positive, got "
                f"{self.critic_width} and {self.critic_lr}"
            )

    @property
    def title(self) -> str:
        return f"train the visual tokenizer {self.tokenizer}"

    @property
    def is_finished(self) -> bool:
        from mmgen.train.picture_trainer import is_picture_run_finished
        from mmgen.train.tokenizer_trainer import TokenizerTask

        return is_picture_run_finished(self, TokenizerTask.result)

    def run(self, progress: AbstractProgress) -> bool:
        from mmgen.train.tokenizer_trainer import train_tokenizer

        return train_tokenizer(self, progress=progress)
