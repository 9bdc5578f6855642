"""The plugin itself: the convolutions that tokenizers share, around the rounding in `quantizer`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from mmgen.autoencoding import (
    AbstractGridTokenizer,
    AbstractQuantizer,
    ConvolutionalSettings,
    LearnedSettings,
)
from mmgen_fsq.quantizer import FiniteScalarQuantizer

__all__ = ["FsqSettings", "FsqTokenizer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FsqSettings(ConvolutionalSettings):
    """Everything that shapes the network."""

    levels: tuple[int, ...] = (7, 5, 5, 5, 5)
    """Levels of each latent axis; their product is the codebook size."""

    def __post_init__(self) -> None:
        if not self.levels or min(self.levels) < 3:
            raise ValueError(f"levels need 3 or more each, got {self.levels}")
        # Zero arguments would look for the class that `slots` has replaced.
        super(FsqSettings, self).__post_init__()


class FsqTokenizer(AbstractGridTokenizer):
    """Finite scalar quantisation of a convolutional latent; any size in multiples of 8 pixels."""

    name: ClassVar[str] = "fsq"
    settings_type: ClassVar[type[ConvolutionalSettings]] = FsqSettings
    shipped: ClassVar[Path] = Path(__file__).parent / "weights"

    @classmethod
    def make_quantizer(cls, settings: LearnedSettings) -> AbstractQuantizer:
        assert isinstance(settings, FsqSettings)
        return FiniteScalarQuantizer(settings.levels)

    @classmethod
    def blank_codes(cls, quantizer: AbstractQuantizer) -> tuple[int, ...]:
        """The middle of every level, a grey."""
        return (quantizer.codebook_sizes[0] // 2,)
