"""The plugin itself: the tokenizer of sequences, with a reader of captions for both of its halves.

Words say which thing is shown and in what manner, so that the codes need not (TexTok, TA-TiTok).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from mmgen.autoencoding import (
    AbstractAutoencoder,
    AbstractSequenceNetwork,
    AbstractSequenceTokenizer,
    Beside,
    LearnedSettings,
    SequenceSettings,
)
from mmgen.visual_tokenizer import TrainingOutput, VisualTokenizerSpec
from mmgen_caption.forecast import CaptionForecast
from mmgen_caption.reader import CaptionReader

__all__ = ["CaptionNetwork", "CaptionSettings", "CaptionTokenizer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionSettings(SequenceSettings):
    """What shapes the network, and how it reads."""

    reader_layers: int = 2
    """Transformer blocks of the reader."""
    reader_buckets: int = 4096
    """Vectors that pieces of words share."""
    reader_summaries: int = 8
    """Features of a caption that both halves look at."""
    reader_places: int = 32
    """Words whose place is told apart; later ones share the last."""
    forecast_buckets: int = 4096
    """Rows of the forecast that pieces of words share."""

    def __post_init__(self) -> None:
        for name in (
            "reader_layers",
            "reader_buckets",
            "reader_summaries",
            "reader_places",
            "forecast_buckets",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}")
        # Zero arguments would look for the class that `slots` has replaced.
        super(CaptionSettings, self).__post_init__()


class CaptionNetwork(AbstractSequenceNetwork):
    """Looks at pictures and at what is said of them."""

    def __init__(self, settings: CaptionSettings) -> None:
        super().__init__(settings)
        self.reader = CaptionReader(
            width=settings.width,
            num_heads=settings.num_heads,
            num_layers=settings.reader_layers,
            num_buckets=settings.reader_buckets,
            num_summaries=settings.reader_summaries,
            num_places=settings.reader_places,
        )
        self.forecast = CaptionForecast(
            num_buckets=settings.forecast_buckets,
            num_positions=settings.max_length,
            dim=self.quantizer.dim,
        )

    def forward(self, images: Tensor, captions: Sequence[str] | None = None) -> TrainingOutput:
        said = [""] * len(images) if captions is None else captions
        return self.reconstructed(images, self.beside(said))

    def beside(self, captions: Sequence[str]) -> Beside:
        """Return what both halves know from captions."""
        return Beside(self.reader(captions), self.forecast(captions))


class CaptionTokenizer(AbstractSequenceTokenizer):
    """1 to 64 codes of a picture, coarse to fine, beside a caption; without one, none is read."""

    name: ClassVar[str] = "caption"
    settings_type: ClassVar[type[SequenceSettings]] = CaptionSettings
    shipped: ClassVar[Path] = Path(__file__).parent / "weights"

    def __init__(
        self, settings: LearnedSettings, network: AbstractAutoencoder, fingerprint: str | None
    ) -> None:
        super().__init__(settings, network, fingerprint)
        assert isinstance(network, CaptionNetwork)
        self._caption_network = network

    @classmethod
    def build(cls, settings: LearnedSettings) -> AbstractAutoencoder:
        assert isinstance(settings, CaptionSettings)
        return CaptionNetwork(settings)

    def _described(self, settings: SequenceSettings) -> VisualTokenizerSpec:
        spec = super()._described(settings)
        return replace(spec, captions_used=frozenset({"encode", "decode"}))

    def begin_training(self, pictures: Tensor, captions: Sequence[str] = ()) -> None:
        super().begin_training(pictures, captions)
        network = self._caption_network
        said = captions or [""] * len(pictures)
        network.forecast.fit(said, network.principal.analysed(pictures))

    def _beside(self, captions: Sequence[str] | None, count: int) -> Beside:
        with torch.inference_mode():
            return self._caption_network.beside([""] * count if captions is None else captions)
