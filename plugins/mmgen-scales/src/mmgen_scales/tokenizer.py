"""The plugin itself: the convolutions that tokenizers share, around the scales in `quantizer`."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from mmgen.autoencoding import (
    AbstractAutoencoder,
    AbstractGridTokenizer,
    AbstractQuantizer,
    ConvolutionalSettings,
    LearnedSettings,
)
from mmgen.visual_tokenizer import Codes, Layout, Picture, Scales
from mmgen_scales.quantizer import ScaleQuantizer, sizes_of

__all__ = ["ScalesSettings", "ScalesTokenizer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalesSettings(ConvolutionalSettings):
    """Everything that shapes the network."""

    ineffective: ClassVar[frozenset[str]] = ConvolutionalSettings.ineffective | {"prefix_share"}

    scales: tuple[int, ...] = (1, 2, 3, 4, 6, 8)
    """Rows and columns of each scale relative to the last, which is the grid of latents itself."""
    codebook_size: int = 2048
    """Codes of the one codebook."""
    dim: int = 5
    """Numbers of one latent; those of fsq are five, where training may start."""
    prefix_share: float = 0.2
    """Share of pictures that training decodes from their first scales alone."""

    def __post_init__(self) -> None:
        if not self.scales or self.scales[0] < 1 or list(self.scales) != sorted(set(self.scales)):
            raise ValueError(f"scales must rise from 1 or more, got {self.scales}")
        if self.codebook_size < 2 or self.dim < 1:
            raise ValueError(
                "codebook_size must be 2 or more and dim 1 or more, got "
                f"{self.codebook_size} and {self.dim}"
            )
        if not 0 <= self.prefix_share <= 1:
            raise ValueError(f"prefix_share must lie in 0..1, got {self.prefix_share}")
        # Zero arguments would look for the class that `slots` has replaced.
        super(ScalesSettings, self).__post_init__()

    @property
    def shares(self) -> tuple[Fraction, ...]:
        """Rows of each scale as a share of the rows of the last."""
        return tuple(Fraction(scale, self.scales[-1]) for scale in self.scales)


class ScalesTokenizer(AbstractGridTokenizer):
    """Residual codes over scales (VAR): any size in multiples of 8 pixels, coarse to fine."""

    name: ClassVar[str] = "scales"
    settings_type: ClassVar[type[ConvolutionalSettings]] = ScalesSettings
    shipped: ClassVar[Path] = Path(__file__).parent / "weights"

    def __init__(
        self, settings: LearnedSettings, network: AbstractAutoencoder, fingerprint: str | None
    ) -> None:
        assert isinstance(settings, ScalesSettings)
        self._shares = settings.shares
        super().__init__(settings, network, fingerprint)

    @classmethod
    def make_quantizer(cls, settings: LearnedSettings) -> AbstractQuantizer:
        assert isinstance(settings, ScalesSettings)
        return ScaleQuantizer(
            settings.shares, settings.codebook_size, settings.dim, settings.prefix_share
        )

    def layout_of(self, rows: int, columns: int) -> Layout:
        return Scales(sizes_of(self._shares, rows, columns))

    def grid_of(self, layout: Layout) -> tuple[int, int]:
        if not isinstance(layout, Scales) or layout != self.layout_of(*layout.sizes[-1]):
            raise ValueError(f"{self.name} decodes scales in fixed proportions, got {layout}")
        return layout.sizes[-1]

    def vectors_of(self, codes: Tensor, rows: int, columns: int) -> Tensor:
        quantizer = self._network.quantizer
        assert isinstance(quantizer, ScaleQuantizer)
        return quantizer.assembled(codes.squeeze(-1), rows, columns)

    def preview(self, codes: Codes, *, caption: str | None = None) -> Picture:
        """Return the picture of the scales so far; what is missing adds no detail."""
        if caption is not None:
            raise ValueError(f"{self.name} reads no captions")
        grid = self.grid_of(codes.layout)
        if len(codes.array):
            self._check_array(codes, complete=False)
        return self._decoded([codes], [grid])[0]
