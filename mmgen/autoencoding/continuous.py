"""An autoencoder of continuous latents, and the interface by which any such one is quantised later.

A continuous autoencoder has no codebook: its latents are numbers, which a wrapper turns into codes
after training (`mmgen.wrapping.bridged`). As a visual tokenizer of its own it writes each number
with 8 bits, which is finer than needed and makes it complete.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from einops import rearrange
from torch import Tensor

from mmgen.autoencoding.convolutions import FACTOR, ConvolutionalSettings
from mmgen.autoencoding.grid_tokenizer import BATCH_PIXELS, AbstractGridTokenizer
from mmgen.autoencoding.learned_tokenizer import equal_batches
from mmgen.autoencoding.quantizer import AbstractQuantizer, Quantized
from mmgen.autoencoding.settings import LearnedSettings
from mmgen.errors import PluginError
from mmgen.visual_tokenizer import Layout, Parts, Picture

__all__ = [
    "AbstractContinuousAutoencoder",
    "ContinuousSettings",
    "ContinuousTokenizer",
    "FineRounding",
    "Latents",
]

Latents: TypeAlias = npt.NDArray[np.float32]
"""The latents of one picture, `[positions, dim]`, in spelling order."""

LEVELS = 256
"""Levels of each number where latents are written as codes."""


class AbstractContinuousAutoencoder(ABC):
    """What a tokenizer that can be bridged offers besides: pictures to numbers and back."""

    @property
    @abstractmethod
    def latent_dim(self) -> int:
        """Numbers at each position."""

    @abstractmethod
    def encode_latents(self, images: Sequence[Picture]) -> list[Latents]:
        """Return the latents of each picture.

        Raises:
            ValueError: a picture of a size that the spec does not list.
        """

    @abstractmethod
    def decode_latents(
        self, latents: Sequence[Latents], layouts: Sequence[Layout]
    ) -> list[Picture]:
        """Return the picture of each item, of the size that its layout stands for.

        Raises:
            ValueError: latents that do not fill their layout, or a layout not in the spec.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class ContinuousSettings(ConvolutionalSettings):
    """Everything that shapes the network."""

    ineffective: ClassVar[frozenset[str]] = ConvolutionalSettings.ineffective | {"noise"}

    dim: int = 8
    """Numbers of one latent, each in -1..1."""
    noise: float = 0.06
    """Half the width of the even noise on latents in training: what rounding will do to them."""

    def __post_init__(self) -> None:
        if self.dim < 1 or not 0 <= self.noise < 1:
            raise ValueError(
                f"dim must be 1 or more and noise in 0..1, got {self.dim} and {self.noise}"
            )
        super(ContinuousSettings, self).__post_init__()


class FineRounding(AbstractQuantizer):
    """Bounds latents `[..., dim]` by a hyperbolic tangent; writes each number with 8 bits.

    Training sees the numbers themselves, with noise, so that whatever rounds them later finds a
    decoder that bears it.
    """

    def __init__(self, dim: int, noise: float) -> None:
        super().__init__()
        self.dim = dim
        self.codebook_sizes = (LEVELS,) * dim
        self._noise = noise

    def forward(self, latents: Tensor) -> Quantized:
        bounded = torch.tanh(latents)
        codes = ((bounded + 1) * ((LEVELS - 1) / 2)).round().long()
        if not self.training:
            return Quantized(self.vectors(codes), codes)
        noise = (torch.rand_like(bounded) * 2 - 1) * self._noise
        return Quantized(bounded + noise, codes)

    def vectors(self, codes: Tensor) -> Tensor:
        return codes.to(torch.float32) * (2 / (LEVELS - 1)) - 1

    def code_vectors(self, codebook: int) -> Tensor:
        return self.vectors(torch.arange(LEVELS).unsqueeze(-1))


class ContinuousTokenizer(AbstractGridTokenizer, AbstractContinuousAutoencoder):
    """Convolutions without a codebook; any size in multiples of 8 pixels."""

    name: ClassVar[str] = "continuous"
    settings_type: ClassVar[type[ConvolutionalSettings]] = ContinuousSettings
    shipped: ClassVar[Path] = Path()

    @classmethod
    def make_quantizer(cls, settings: LearnedSettings) -> AbstractQuantizer:
        assert isinstance(settings, ContinuousSettings)
        return FineRounding(settings.dim, settings.noise)

    @classmethod
    def blank_codes(cls, quantizer: AbstractQuantizer) -> tuple[int, ...]:
        """The middle of every range."""
        return tuple(size // 2 for size in quantizer.codebook_sizes)

    @classmethod
    def load(
        cls,
        path: Path | None = None,
        *,
        parts: Parts = "both",
        device: str = "cpu",
        dtype: str = "float32",
    ) -> Self:
        if path is None:
            raise PluginError(
                "mmgen ships no weights for 'continuous'; train them with `mmgen train continuous` "
                "and give their folder"
            )
        return super().load(path, parts=parts, device=device, dtype=dtype)

    @property
    def latent_dim(self) -> int:
        return self._network.quantizer.dim

    def encode_latents(self, images: Sequence[Picture]) -> list[Latents]:
        encoder = self._encoder
        for image in images:
            self._check_picture(image)
        found: dict[int, Latents] = {}
        parameter = next(encoder.parameters())
        for indices in equal_batches([image.shape[:2] for image in images], BATCH_PIXELS):
            batch = torch.from_numpy(np.stack([images[index] for index in indices]))
            batch = rearrange(batch, "b h w c -> b c h w").to(parameter.device, parameter.dtype)
            with torch.inference_mode():
                latents = encoder(batch.contiguous(memory_format=torch.channels_last))
                bounded = torch.tanh(latents.float()).cpu()
            arrays = rearrange(bounded, "b c h w -> b (h w) c").numpy()
            for index, array in zip(indices, arrays, strict=True):
                found[index] = np.ascontiguousarray(array)
        return [found[index] for index in range(len(images))]

    def decode_latents(
        self, latents: Sequence[Latents], layouts: Sequence[Layout]
    ) -> list[Picture]:
        decoder = self._decoder
        shapes = [
            self._check_latents(item, layout) for item, layout in zip(latents, layouts, strict=True)
        ]
        found: dict[int, Picture] = {}
        parameter = next(decoder.parameters())
        for indices in equal_batches(shapes, BATCH_PIXELS // FACTOR**2):
            rows, columns = shapes[indices[0]]
            batch = torch.from_numpy(np.stack([latents[index] for index in indices]))
            batch = rearrange(batch, "b (h w) c -> b c h w", h=rows, w=columns)
            batch = batch.to(parameter.device, parameter.dtype)
            with torch.inference_mode():
                pixels = decoder(batch.contiguous(memory_format=torch.channels_last))
            arrays = rearrange(pixels.float().cpu().clamp(0, 1), "b c h w -> b h w c").numpy()
            for index, array in zip(indices, arrays, strict=True):
                found[index] = np.ascontiguousarray(array)
        return [found[index] for index in range(len(latents))]

    def _check_latents(self, latents: Latents, layout: Layout) -> tuple[int, int]:
        if layout not in self.spec.layouts:
            raise ValueError(f"{self.name} has no layout {layout}")
        if latents.shape != (layout.num_positions, self.latent_dim):
            raise ValueError(
                f"{layout} needs latents [{layout.num_positions}, {self.latent_dim}], got "
                f"{list(latents.shape)}"
            )
        return self.grid_of(layout)
