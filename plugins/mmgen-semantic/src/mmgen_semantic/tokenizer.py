"""The plugin itself: its settings, and where a teacher comes in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Self

import torch

from mmgen.autoencoding import (
    AbstractAutoencoder,
    AbstractGridTokenizer,
    AbstractQuantizer,
    ConvolutionalSettings,
    FeatureTower,
    LearnedSettings,
)
from mmgen.errors import PluginError
from mmgen_semantic.network import SemanticNetwork
from mmgen_semantic.quantizer import DualQuantizer
from mmgen_semantic.teachers import load_teacher

__all__ = ["SemanticSettings", "SemanticTokenizer"]

NUM_BEGINNING = 512
"""Pictures that are enough to begin with: each has many places."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SemanticSettings(ConvolutionalSettings):
    """Everything that shapes the network."""

    ineffective: ClassVar[frozenset[str]] = ConvolutionalSettings.ineffective | {"teacher"}

    levels: tuple[int, ...] = (7, 5, 5, 5, 5)
    """Levels of each pixel latent; their product is the pixel codebook, that of fsq."""
    codebook_size: int = 1024
    """Semantic codes."""
    meaning_dim: int = 32
    """Numbers of a semantic code vector."""
    tower_widths: tuple[int, int, int] = (64, 128, 224)
    """Channels of the semantic encoder at 1/4, 1/8 and 1/16 of the picture's side."""
    tower_depths: tuple[int, int] = (1, 2)
    """Its residual blocks at 1/8 and 1/16."""
    teacher: str = ""
    """The teacher, for training only: a folder or the name of a model of `transformers`. It is not
    saved with the rest."""

    def __post_init__(self) -> None:
        if not self.levels or min(self.levels) < 3:
            raise ValueError(f"levels need 3 or more each, got {self.levels}")
        if self.codebook_size < 2 or self.meaning_dim < 2:
            raise ValueError(
                "codebook_size and meaning_dim must be 2 or more, got "
                f"{self.codebook_size} and {self.meaning_dim}"
            )
        if min(self.tower_widths) < 1 or min(self.tower_depths) < 0:
            raise ValueError(
                "tower_widths must be positive and tower_depths not negative, got "
                f"{self.tower_widths} and {self.tower_depths}"
            )
        # Zero arguments would look for the class that `slots` has replaced.
        super(SemanticSettings, self).__post_init__()


class SemanticTokenizer(AbstractGridTokenizer):
    """Two codes at each place, the first of what is there; any size in multiples of 8 pixels."""

    name: ClassVar[str] = "semantic"
    settings_type: ClassVar[type[ConvolutionalSettings]] = SemanticSettings
    shipped: ClassVar[Path] = Path(__file__).parent / "weights"

    def __init__(
        self, settings: LearnedSettings, network: AbstractAutoencoder, fingerprint: str | None
    ) -> None:
        assert isinstance(settings, SemanticSettings)
        super().__init__(replace(settings, teacher=""), network, fingerprint)

    @classmethod
    def untrained(cls, settings: Mapping[str, object], *, seed: int) -> Self:
        if not settings.get("teacher"):
            raise PluginError(
                "semantic learns from a teacher: set settings.teacher to the folder of one that "
                "`mmgen train semantic` left, or to a vision model of transformers"
            )
        return super().untrained(settings, seed=seed)

    def begin_training(self, pictures: torch.Tensor, captions: Sequence[str] = ()) -> None:
        network = self.network()
        assert isinstance(network, SemanticNetwork)
        network.begin(pictures[:NUM_BEGINNING])

    @classmethod
    def make_quantizer(cls, settings: LearnedSettings) -> AbstractQuantizer:
        assert isinstance(settings, SemanticSettings)
        return DualQuantizer(settings.codebook_size, settings.meaning_dim, settings.levels)

    @classmethod
    def blank_codes(cls, quantizer: AbstractQuantizer) -> tuple[int, ...]:
        """The first meaning, and the middle of every level."""
        return (0, quantizer.codebook_sizes[1] // 2)

    @classmethod
    def build(cls, settings: LearnedSettings) -> AbstractAutoencoder:
        assert isinstance(settings, SemanticSettings)
        quantizer = cls.make_quantizer(settings)
        assert isinstance(quantizer, DualQuantizer)
        return SemanticNetwork(
            settings,
            FeatureTower(settings.tower_widths, settings.tower_depths),
            quantizer,
            load_teacher(settings.teacher) if settings.teacher else None,
        )

    def _state(self) -> dict[str, torch.Tensor]:
        """Leave out what only training needs."""
        return {
            name: value for name, value in super()._state().items() if not name.startswith("pupil.")
        }
