"""A picture as a sequence of codes, the most telling first (TiTok, One-D-Piece, FlexTok).

A transformer turns patches of a picture into a sequence of latents, and another one paints from any
prefix of their codes: training cuts every sequence somewhere (nested dropout). Both learn only what
principal components leave to be learnt, so that codes are in order from the first step on. A small
head foresees from the picture how good every length would be (KARL).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from mmgen.autoencoding.convolutions import ResidualBlock
from mmgen.autoencoding.finite_scalar import FiniteScalarQuantizer
from mmgen.autoencoding.learned_tokenizer import AbstractAutoencoder
from mmgen.autoencoding.principal import Expectation, PrincipalComponents
from mmgen.autoencoding.settings import LearnedSettings
from mmgen.autoencoding.similarity import structural_similarity
from mmgen.autoencoding.transformer import Transformer
from mmgen.visual_tokenizer import TrainingOutput

__all__ = [
    "AbstractSequenceNetwork",
    "Beside",
    "SequenceDecoder",
    "SequenceEncoder",
    "SequenceSettings",
]

PATCH = 8
"""Pixels along the side of a patch."""

NUM_CUTS = 4
"""Lengths that one batch is cut to in training, a part of it each."""

FORESIGHT_WEIGHT = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceSettings(LearnedSettings):
    """What shapes the network."""

    ineffective: ClassVar[frozenset[str]] = LearnedSettings.ineffective | {"structure_weight"}

    side: int = 64
    """Pixels along each side of a picture, a multiple of 8."""
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
    """Transformer blocks between patches and latents."""
    decoder_layers: int = 3
    """Transformer blocks between codes and patches."""
    painter_widths: tuple[int, int] = (64, 32)
    """Channels at 1/4 and 1/2 of the picture's side, where patches become pixels."""
    structure_weight: float = 0.5
    """What a lack of structural similarity counts in training."""

    def __post_init__(self) -> None:
        if self.side % PATCH or self.side < 2 * PATCH:
            raise ValueError(f"side must be a multiple of 8 and 16 or more, got {self.side}")
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
    def num_patches(self) -> int:
        return (self.side // PATCH) ** 2


@dataclass(frozen=True, slots=True, eq=False)
class Beside:
    """What both halves know besides the picture or its codes; nothing, unless it is said."""

    features: Tensor | None = None
    """To look at, `[batch, n, width]`."""
    expectation: Expectation | None = None
    """What the picture is held to be, which its codes need not say."""

    def of(self, part: Tensor) -> Beside:
        """Return that of some of the pictures, by their places."""
        return Beside(
            None if self.features is None else self.features[part],
            None if self.expectation is None else self.expectation.of(part),
        )


class SequenceEncoder(nn.Module):
    """Corrects latents by what patches show, and foresees the SSIM of every length."""

    def __init__(self, settings: SequenceSettings, dim: int) -> None:
        super().__init__()
        width = settings.width
        self.patches = nn.Conv2d(3, width, PATCH, stride=PATCH)
        self.places = nn.Parameter(torch.randn(settings.num_patches, width) * 0.02)
        self.sequence = nn.Linear(dim, width)
        self.positions = nn.Parameter(torch.randn(settings.max_length, width) * 0.02)
        self.transformer = Transformer(width, settings.num_heads, settings.encoder_layers)
        self.norm = nn.LayerNorm(width)
        self.correction = nn.Linear(width, dim)
        self.foresight = nn.Sequential(
            nn.Linear(width, width), nn.GELU(), nn.Linear(width, settings.max_length)
        )
        _start_small(self.correction)

    def forward(
        self, images: Tensor, latents: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return better latents, and the foresight `[batch, positions]`, which never falls.

        Args:
            images: `[batch, 3, side, side]` in 0..1.
            latents: `[batch, positions, dim]`.
            context: further features to look at, `[batch, n, width]`.
        """
        grid = rearrange(self.patches(images * 2 - 1), "b d h w -> b (h w) d") + self.places
        sequence = self.sequence(latents) + self.positions
        parts = [grid, sequence, *([] if context is None else [context])]
        features = self.norm(self.transformer(torch.cat(parts, dim=1)))
        start, stop = grid.shape[1], grid.shape[1] + sequence.shape[1]
        better = latents + self.correction(features[:, start:stop])
        first, *gains = self.foresight(features[:, :start].mean(dim=1)).split(1, dim=1)
        rising = [first, *(functional.softplus(gain - 3) for gain in gains)]
        return better, torch.sigmoid(torch.cat(rising, dim=1).cumsum(dim=1))


class SequenceDecoder(nn.Module):
    """Paints from vectors of any number of positions, none included, over a small blurred base."""

    def __init__(self, settings: SequenceSettings, dim: int) -> None:
        super().__init__()
        width = settings.width
        coarse, fine = settings.painter_widths
        self.patches = nn.Conv2d(3, width, PATCH // 2, stride=PATCH // 2)
        self.places = nn.Parameter(torch.randn(settings.num_patches, width) * 0.02)
        self.sequence = nn.Linear(dim, width)
        self.positions = nn.Parameter(torch.randn(settings.max_length, width) * 0.02)
        self.transformer = Transformer(width, settings.num_heads, settings.decoder_layers)
        self.norm = nn.LayerNorm(width)
        self.up_coarse = nn.Conv2d(width, 4 * coarse, 1)
        self.coarse = ResidualBlock(coarse)
        self.up_fine = nn.Conv2d(coarse, 4 * fine, 1)
        self.base = nn.Conv2d(3, fine, 3, padding=1)
        self.fine = nn.Sequential(ResidualBlock(fine), ResidualBlock(fine))
        self.pixels = nn.Conv2d(fine, 12, 3, padding=1)
        self._rows = settings.side // PATCH
        _start_small(self.pixels)

    def forward(self, vectors: Tensor, base: Tensor, context: Tensor | None = None) -> Tensor:
        """Return images `[batch, 3, side, side]`, unclamped.

        Args:
            vectors: `[batch, length, dim]`.
            base: what they are without this network, `[batch, 3, side / 2, side / 2]`.
            context: further features to look at, `[batch, n, width]`.
        """
        base = base.contiguous(memory_format=torch.channels_last) * 2 - 1
        grid = rearrange(self.patches(base), "b d h w -> b (h w) d") + self.places
        sequence = self.sequence(vectors) + self.positions[: vectors.shape[1]]
        parts = [grid, sequence, *([] if context is None else [context])]
        features = self.norm(self.transformer(torch.cat(parts, dim=1))[:, : grid.shape[1]])
        planes = rearrange(features, "b (h w) d -> b d h w", h=self._rows)
        planes = planes.contiguous(memory_format=torch.channels_last)
        planes = self.coarse(functional.pixel_shuffle(self.up_coarse(planes), 2))
        planes = functional.pixel_shuffle(self.up_fine(functional.silu(planes)), 2)
        planes = self.fine(planes + self.base(base))
        detail = functional.pixel_shuffle(self.pixels(functional.silu(planes)), 2)
        blurred = functional.interpolate(base, scale_factor=2, mode="bilinear")
        return (blurred + detail) * 0.5 + 0.5


class AbstractSequenceNetwork(AbstractAutoencoder):
    """Encoder, finite scalar quantisation, and decoder of a sequence.

    A final class says in `forward` what both halves look at besides.
    """

    decoder: SequenceDecoder | None

    def __init__(self, settings: SequenceSettings) -> None:
        super().__init__()
        self.quantizer = FiniteScalarQuantizer(settings.levels)
        dim = self.quantizer.dim
        self.principal = PrincipalComponents(
            side=settings.side, num_positions=settings.max_length, dim=dim
        )
        self.encoder: nn.Module | None = SequenceEncoder(settings, dim)
        self.decoder = SequenceDecoder(settings, dim)
        self._structure_weight = settings.structure_weight

    def latents(self, images: Tensor, beside: Beside) -> tuple[Tensor, Tensor]:
        """Return latents `[batch, positions, dim]` of images, and the SSIM foreseen of each length.

        Args:
            images: `[batch, 3, side, side]` in 0..1.
            beside: what is known besides.
        """
        assert self.encoder is not None
        begun = self.principal.analysed(images, beside.expectation)
        latents: tuple[Tensor, Tensor] = self.encoder(images, begun, beside.features)
        return latents

    def painted(self, vectors: Tensor, beside: Beside) -> Tensor:
        """Return images of vectors `[batch, length, dim]` of any length, unclamped."""
        assert self.decoder is not None
        base = self.principal.assembled(vectors, beside.expectation)
        images: Tensor = self.decoder(vectors, base, beside.features)
        return images

    def cut(self, place: float, longest: int) -> int:
        """Return how much of a sequence training keeps; short ones come more often than long ones.

        Now and then it is nothing.

        Args:
            place: 0..1, where between the shortest and the longest sequence it is to lie.
            longest: positions of the whole sequence.
        """
        is_nothing = place < 1 / (16 * NUM_CUTS)
        return 0 if is_nothing else max(1, round(longest * place**2))

    def reconstructed(self, images: Tensor, beside: Beside) -> TrainingOutput:
        """Reconstruct from whole sequences, or, in training, from a cut of each part of the batch.

        Args:
            images: `[batch, 3, side, side]`.
            beside: what is known besides.
        """
        latents, foresight = self.latents(images, beside)
        quantized = self.quantizer(latents.to(torch.float32))
        longest = latents.shape[1]
        parts = torch.arange(len(images)).tensor_split(NUM_CUTS if self.training else 1)
        painted, foreseen = [], []
        for number, part in enumerate(parts):
            # Each part has its own range: every batch has short, middling and long sequences.
            length = longest
            if self.training:
                length = self.cut((number + torch.rand(()).item()) / NUM_CUTS, longest)
            if len(part):
                painted.append(self.painted(quantized.vectors[part, :length], beside.of(part)))
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


def _start_small(layer: nn.Linear | nn.Conv2d) -> None:
    """Let a correction begin as little more than none."""
    assert layer.bias is not None
    nn.init.normal_(layer.weight, std=0.002)
    nn.init.zeros_(layer.bias)
