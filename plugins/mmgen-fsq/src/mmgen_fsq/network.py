"""The autoencoder around the quantizer: fully convolutional, eight pixels a side to one code.

There is no normalisation layer, so what a code means depends only on the pixels near it, at any
picture size. Residual branches start at zero, which keeps training stable without norms.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from mmgen.visual_tokenizer import TrainingOutput
from mmgen_fsq.quantizer import FiniteScalarQuantizer

__all__ = ["FsqDecoder", "FsqEncoder", "FsqNetwork", "FsqSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FsqSettings:
    """Everything that shapes the network."""

    levels: tuple[int, ...] = (7, 5, 5, 5, 5)
    """Levels of each latent axis; their product is the codebook size."""
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
    min_psnr: float = 0.0
    """Round-trip PSNR in dB promised to the conformance kit."""

    def __post_init__(self) -> None:
        if not self.levels or min(self.levels) < 3:
            raise ValueError(f"levels need 3 or more each, got {self.levels}")
        if (
            self.max_side % 8
            or self.default_side % 8
            or not 8 <= self.default_side <= self.max_side
        ):
            raise ValueError(
                "default_side and max_side must be multiples of 8 with default_side the smaller, "
                f"got {self.default_side} and {self.max_side}"
            )


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


class FsqEncoder(nn.Module):
    """`[batch, 3, 8h, 8w]` in 0..1 to latents `[batch, dims, h, w]`."""

    def __init__(self, settings: FsqSettings) -> None:
        super().__init__()
        fine, coarse = settings.encoder_widths
        self.patches = nn.Conv2d(3, fine, 8, stride=4, padding=2)
        self.fine = _blocks(fine, settings.encoder_depths[0])
        self.down = nn.Conv2d(fine, coarse, 4, stride=2, padding=1)
        self.coarse = _blocks(coarse, settings.encoder_depths[1])
        self.latents = nn.Conv2d(coarse, len(settings.levels), 1)

    def forward(self, images: Tensor) -> Tensor:
        features = self.fine(self.patches(images * 2 - 1))
        features = self.coarse(self.down(features))
        latents: Tensor = self.latents(functional.silu(features))
        return latents


class FsqDecoder(nn.Module):
    """Code vectors `[batch, dims, h, w]` to images `[batch, 3, 8h, 8w]`, unclamped."""

    def __init__(self, settings: FsqSettings) -> None:
        super().__init__()
        coarse, middle, fine = settings.decoder_widths
        depths = settings.decoder_depths
        self.vectors = nn.Conv2d(len(settings.levels), coarse, 3, padding=1)
        self.coarse = _blocks(coarse, depths[0])
        self.up_middle = nn.Conv2d(coarse, middle * 4, 1)
        self.middle = _blocks(middle, depths[1])
        self.up_fine = nn.Conv2d(middle, fine * 4, 1)
        self.fine = _blocks(fine, depths[2])
        self.pixels = nn.Conv2d(fine, 12, 3, padding=1)

    def forward(self, vectors: Tensor) -> Tensor:
        features = self.coarse(self.vectors(vectors))
        features = self.middle(functional.pixel_shuffle(self.up_middle(features), 2))
        features = self.fine(functional.pixel_shuffle(self.up_fine(features), 2))
        pixels = functional.pixel_shuffle(self.pixels(functional.silu(features)), 2)
        return pixels * 0.5 + 0.5


class FsqNetwork(nn.Module):
    """Encoder, quantizer and decoder in one, for training."""

    def __init__(self, settings: FsqSettings) -> None:
        super().__init__()
        self.encoder = FsqEncoder(settings)
        self.quantizer = FiniteScalarQuantizer(settings.levels)
        self.decoder = FsqDecoder(settings)

    def forward(self, images: Tensor) -> TrainingOutput:
        """Reconstruct `[batch, 3, height, width]` in 0..1; the quantizer needs no extra loss."""
        latents = rearrange(self.encoder(images), "b c h w -> b h w c")
        # Rounding has to see the exact latents, whatever precision the convolutions run in.
        vectors, codes = self.quantizer(latents.to(torch.float32))
        reconstruction = self.decoder(rearrange(vectors, "b h w c -> b c h w"))
        return TrainingOutput(
            reconstruction=reconstruction,
            codes=rearrange(codes, "b h w -> b (h w) 1"),
        )
