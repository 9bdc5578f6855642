"""A convolutional encoder and decoder: eight pixels a side to one latent, and back.

There is no normalisation layer, so what a latent means depends only on the pixels near it, at any
picture size. Residual branches start at zero, which keeps training stable without norms.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional

from mmgen.autoencoding.settings import LearnedSettings

__all__ = [
    "FACTOR",
    "ConvolutionalDecoder",
    "ConvolutionalEncoder",
    "ConvolutionalSettings",
    "ResidualBlock",
]

FACTOR = 8
"""Pixels a side that become one latent (the downsample factor)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvolutionalSettings(LearnedSettings):
    """What shapes the convolutions, and the sizes of pictures."""

    ineffective: ClassVar[frozenset[str]] = LearnedSettings.ineffective | {"perturbation"}

    encoder_widths: tuple[int, int] = (64, 128)
    """Channels at 1/4 and 1/8 of the picture's side."""
    encoder_depths: tuple[int, int] = (1, 2)
    """Residual blocks at the same places."""
    decoder_widths: tuple[int, int, int] = (160, 96, 48)
    """Channels at 1/8, 1/4 and 1/2 of the side."""
    decoder_depths: tuple[int, int, int] = (2, 2, 1)
    """Residual blocks at the same places."""
    max_side: int = 256
    """Largest picture side in pixels; sides are multiples of 8."""
    default_side: int = 64
    """Side in pixels of a picture of which nobody says the size."""
    perturbation: float = 0.0
    """Share of vectors exchanged for another position's in training: a decoder that has met wrong
    codes bears the mistakes of a model that draws them better (latent perturbation, RobusTok)."""

    def __post_init__(self) -> None:
        if (
            self.max_side % FACTOR
            or self.default_side % FACTOR
            or not FACTOR <= self.default_side <= self.max_side
        ):
            raise ValueError(
                "default_side and max_side must be multiples of 8 with default_side the smaller, "
                f"got {self.default_side} and {self.max_side}"
            )
        if not 0 <= self.perturbation < 1:
            raise ValueError(f"perturbation must lie in 0..1, got {self.perturbation}")


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions added to their input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        assert self.second.bias is not None
        nn.init.zeros_(self.second.bias)

    def forward(self, features: Tensor) -> Tensor:
        branch = functional.silu(self.first(functional.silu(features)))
        out: Tensor = features + self.second(branch)
        return out


def _blocks(width: int, depth: int) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(width) for _ in range(depth)))


class ConvolutionalEncoder(nn.Module):
    """`[batch, 3, 8h, 8w]` in 0..1 to latents `[batch, dim, h, w]`."""

    def __init__(self, settings: ConvolutionalSettings, dim: int) -> None:
        super().__init__()
        fine, coarse = settings.encoder_widths
        self.patches = nn.Conv2d(3, fine, 8, stride=4, padding=2)
        self.fine = _blocks(fine, settings.encoder_depths[0])
        self.down = nn.Conv2d(fine, coarse, 4, stride=2, padding=1)
        self.coarse = _blocks(coarse, settings.encoder_depths[1])
        self.latents = nn.Conv2d(coarse, dim, 1)

    def forward(self, images: Tensor) -> Tensor:
        features = self.fine(self.patches(images * 2 - 1))
        features = self.coarse(self.down(features))
        latents: Tensor = self.latents(functional.silu(features))
        return latents


class ConvolutionalDecoder(nn.Module):
    """Vectors `[batch, dim, h, w]` to images `[batch, 3, 8h, 8w]`, unclamped."""

    def __init__(self, settings: ConvolutionalSettings, dim: int) -> None:
        super().__init__()
        coarse, middle, fine = settings.decoder_widths
        depths = settings.decoder_depths
        self.vectors = nn.Conv2d(dim, coarse, 3, padding=1)
        self.coarse = _blocks(coarse, depths[0])
        self.up_middle = nn.Conv2d(coarse, middle * 4, 1)
        self.middle = _blocks(middle, depths[1])
        self.up_fine = nn.Conv2d(middle, fine * 4, 1)
        self.fine = _blocks(fine, depths[2])
        self.pixels = nn.Conv2d(fine, 12, 3, padding=1)

    def forward(self, vectors: Tensor) -> Tensor:
        return self.drawn(self.vectors(vectors))

    def drawn(self, features: Tensor) -> Tensor:
        """Return images of features `[batch, width, h, w]`, which `vectors` or others made."""
        features = self.coarse(features)
        features = self.middle(functional.pixel_shuffle(self.up_middle(features), 2))
        features = self.fine(functional.pixel_shuffle(self.up_fine(features), 2))
        pixels = functional.pixel_shuffle(self.pixels(functional.silu(features)), 2)
        return pixels * 0.5 + 0.5
