"""A picture as a sequence of codes, the most telling first (TiTok, One-D-Piece, FlexTok).

Convolutions see the pixels, a transformer turns their grid of features into a sequence of latents,
and another one paints from any prefix of it: training cuts every sequence somewhere (nested
dropout). Sequence and grid are tied by a learned matrix that starts as the cosine transform, so
that a code is a wave of the features before it is anything better, slow waves first. A small head
foresees from the picture how good every length would be (KARL).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from mmgen.autoencoding.convolutions import (
    FACTOR,
    ConvolutionalDecoder,
    ConvolutionalEncoder,
    ConvolutionalSettings,
)
from mmgen.autoencoding.finite_scalar import FiniteScalarQuantizer
from mmgen.autoencoding.learned_tokenizer import AbstractAutoencoder
from mmgen.autoencoding.similarity import structural_similarity
from mmgen.autoencoding.transformer import Transformer, cosine_waves
from mmgen.visual_tokenizer import TrainingOutput

__all__ = ["AbstractSequenceNetwork", "SequenceDecoder", "SequenceEncoder", "SequenceSettings"]

NUM_CUTS = 4
"""Lengths that one batch is cut to in training, a part of it each."""

FORESIGHT_WEIGHT = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceSettings(ConvolutionalSettings):
    """What shapes the network. Pictures have one size, `default_side`."""

    ineffective: ClassVar[frozenset[str]] = ConvolutionalSettings.ineffective | {"structure_weight"}

    decoder_widths: tuple[int, int, int] = (128, 64, 32)
    decoder_depths: tuple[int, int, int] = (0, 1, 1)
    max_side: int = 64
    levels: tuple[int, ...] = (7, 5, 5, 5, 5)
    """Levels of each number of a latent; their product is the codebook size."""
    max_length: int = 64
    """Positions of the longest sequence."""
    default_length: int = 32
    """Positions of a sequence of which nobody says the length."""
    width: int = 192
    """Numbers of a feature in the transformers."""
    num_heads: int = 4
    """Heads of attention."""
    encoder_layers: int = 2
    """Transformer blocks between the picture's features and the latents."""
    decoder_layers: int = 3
    """Transformer blocks between the codes and the features to paint."""
    structure_weight: float = 0.3
    """What a lack of structural similarity counts in training."""

    def __post_init__(self) -> None:
        # Zero arguments would look for the class that `slots` has replaced.
        super(SequenceSettings, self).__post_init__()
        if self.max_side != self.default_side or self.default_side < 16:
            raise ValueError(
                "max_side and default_side must be one size of 16 or more, got "
                f"{self.max_side} and {self.default_side}"
            )
        if not 1 <= self.default_length <= self.max_length:
            raise ValueError(
                f"default_length must lie in 1..max_length, got {self.default_length} of "
                f"{self.max_length}"
            )
        if self.width % self.num_heads:
            raise ValueError(
                f"width must be a multiple of num_heads, got {self.width} and {self.num_heads}"
            )
        if not self.levels or min(self.levels) < 3:
            raise ValueError(f"levels need 3 or more each, got {self.levels}")
        if self.structure_weight < 0:
            raise ValueError(f"structure_weight must not be negative, got {self.structure_weight}")

    @property
    def grid_side(self) -> int:
        """Rows, and columns, of the features."""
        return self.default_side // FACTOR


def _waves(settings: SequenceSettings) -> Tensor:
    """Return a wave for each position of the sequence, `[max_length, rows * columns]`."""
    waves = cosine_waves(settings.grid_side, settings.grid_side)
    return waves[torch.arange(settings.max_length) % len(waves)]


class SequenceEncoder(nn.Module):
    """`[batch, 3, side, side]` in 0..1 to latents `[batch, max_length, dim]` and foresight.

    Foresight is the SSIM that is expected of every length, `[batch, max_length]`, never falling.
    """

    def __init__(self, settings: SequenceSettings, dim: int) -> None:
        super().__init__()
        width, num_places = settings.width, settings.grid_side**2
        self.convolutions = ConvolutionalEncoder(settings, width)
        self.places = nn.Parameter(torch.randn(num_places, width) * 0.02)
        self.positions = nn.Parameter(torch.randn(settings.max_length, width) * 0.02)
        self.waves = nn.Parameter(_waves(settings))
        self.transformer = Transformer(width, settings.num_heads, settings.encoder_layers)
        self.norm = nn.LayerNorm(width)
        self.latents = nn.Linear(width, dim)
        # Latents that reach all levels from the start.
        nn.init.normal_(self.latents.weight, std=1.5 / math.sqrt(width))
        self.foresight = nn.Sequential(
            nn.Linear(width, width), nn.GELU(), nn.Linear(width, settings.max_length)
        )

    def forward(self, images: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Encode; `context` `[batch, n, width]` is looked at as well."""
        grid = rearrange(self.convolutions(images), "b d h w -> b (h w) d")
        num_places = grid.shape[1]
        sequence = self.waves @ grid + self.positions
        parts = [grid + self.places, sequence, *([] if context is None else [context])]
        features = self.norm(self.transformer(torch.cat(parts, dim=1)))
        seen, sequence = features[:, :num_places], features[:, num_places:]
        latents = self.latents(sequence[:, : len(self.positions)])
        first, gains = self.foresight(seen.mean(dim=1)).split([1, len(self.positions) - 1], dim=1)
        rising = torch.cat([first, functional.softplus(gains - 3)], dim=1).cumsum(dim=1)
        return latents, torch.sigmoid(rising)


class SequenceDecoder(nn.Module):
    """Vectors `[batch, length, dim]` of any length to images `[batch, 3, side, side]`, unclamped.

    Without any vector it paints what it expects of a picture that nothing is known of.
    """

    def __init__(self, settings: SequenceSettings, dim: int) -> None:
        super().__init__()
        width, num_places = settings.width, settings.grid_side**2
        self.vectors = nn.Linear(dim, width)
        self.places = nn.Parameter(torch.randn(num_places, width) * 0.02)
        self.positions = nn.Parameter(torch.randn(settings.max_length, width) * 0.02)
        self.waves = nn.Parameter(_waves(settings).T.contiguous())
        self.transformer = Transformer(width, settings.num_heads, settings.decoder_layers)
        self.norm = nn.LayerNorm(width)
        self.convolutions = ConvolutionalDecoder(settings, width)
        self._side = settings.grid_side

    def forward(self, vectors: Tensor, context: Tensor | None = None) -> Tensor:
        """Decode; `context` `[batch, n, width]` is looked at as well."""
        length = vectors.shape[1]
        sequence = self.vectors(vectors) + self.positions[:length]
        grid = self.waves[:, :length] @ sequence + self.places
        parts = [grid, sequence, *([] if context is None else [context])]
        features = self.norm(self.transformer(torch.cat(parts, dim=1))[:, : len(self.places)])
        features = rearrange(features, "b (h w) d -> b d h w", h=self._side)
        out: Tensor = self.convolutions(features.contiguous(memory_format=torch.channels_last))
        return out


class AbstractSequenceNetwork(AbstractAutoencoder):
    """Encoder, finite scalar quantisation, and decoder of a sequence.

    A final class says in `forward` what both halves look at besides.
    """

    encoder: SequenceEncoder | None
    decoder: SequenceDecoder | None

    def __init__(self, settings: SequenceSettings) -> None:
        super().__init__()
        self.quantizer = FiniteScalarQuantizer(settings.levels)
        self.encoder = SequenceEncoder(settings, self.quantizer.dim)
        self.decoder = SequenceDecoder(settings, self.quantizer.dim)
        self._structure_weight = settings.structure_weight

    def reconstructed(self, images: Tensor, context: Tensor | None) -> TrainingOutput:
        """Reconstruct from whole sequences, or, in training, from each part of the batch's own cut.

        Args:
            images: `[batch, 3, side, side]`.
            context: what both halves look at besides, `[batch, n, width]`.
        """
        assert self.encoder is not None and self.decoder is not None
        latents, foresight = self.encoder(images, context)
        quantized = self.quantizer(latents.to(torch.float32))
        longest = latents.shape[1]
        parts = torch.arange(len(images)).tensor_split(NUM_CUTS if self.training else 1)
        painted, foreseen = [], []
        for number, part in enumerate(parts):
            length = _cut(number, longest) if self.training else longest
            if len(part):
                beside = None if context is None else context[part]
                painted.append(self.decoder(quantized.vectors[part, :length], beside))
                # No code at all is worth painting, but no length that anybody asks for.
                foreseen.append(foresight[part, max(length, 1) - 1])
        reconstruction = torch.cat(painted)
        losses = {}
        if self.training:
            similarity = structural_similarity(reconstruction, images)
            losses["structure"] = self._structure_weight * (1 - similarity.mean())
            error = torch.cat(foreseen) - similarity.detach().clamp(0, 1)
            losses["foresight"] = FORESIGHT_WEIGHT * error.abs().mean()
        return TrainingOutput(reconstruction=reconstruction, codes=quantized.codes, losses=losses)


def _cut(number: int, longest: int) -> int:
    """Return a random length for one part of the batch, short ones more often than long ones.

    Each part has its own range, so that every batch has short, middling and long sequences. Now
    and then the first one is cut to nothing.
    """
    share = (number + torch.rand(()).item()) / NUM_CUTS
    is_nothing = share < 1 / (16 * NUM_CUTS)
    return 0 if is_nothing else max(1, round(longest * share**2))
