"""The plugin itself: the network and the tokenizer of sequences, which it shares with others."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from torch import Tensor

from mmgen.autoencoding import (
    AbstractAutoencoder,
    AbstractSequenceNetwork,
    AbstractSequenceTokenizer,
    Beside,
    LearnedSettings,
    SequenceSettings,
)
from mmgen.visual_tokenizer import TrainingOutput

__all__ = ["OrderedNetwork", "OrderedTokenizer"]


class OrderedNetwork(AbstractSequenceNetwork):
    """Looks at pictures alone."""

    def forward(self, images: Tensor) -> TrainingOutput:
        return self.reconstructed(images, Beside())


class OrderedTokenizer(AbstractSequenceTokenizer):
    """1 to 64 codes of a picture, coarse to fine; any prefix decodes."""

    name: ClassVar[str] = "ordered"
    settings_type: ClassVar[type[SequenceSettings]] = SequenceSettings
    shipped: ClassVar[Path] = Path(__file__).parent / "weights"

    @classmethod
    def build(cls, settings: LearnedSettings) -> AbstractAutoencoder:
        assert isinstance(settings, SequenceSettings)
        return OrderedNetwork(settings)
