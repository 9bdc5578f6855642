"""A tokenizer of codes on a grid: convolutions around whatever quantizer a plugin brings."""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from einops import rearrange
from torch import Tensor

from mmgen.autoencoding.convolutions import (
    FACTOR,
    ConvolutionalDecoder,
    ConvolutionalEncoder,
    ConvolutionalSettings,
)
from mmgen.autoencoding.learned_tokenizer import (
    AbstractAutoencoder,
    AbstractLearnedTokenizer,
    equal_batches,
)
from mmgen.autoencoding.quantizer import AbstractQuantizer
from mmgen.autoencoding.settings import LearnedSettings
from mmgen.visual_tokenizer import (
    Codes,
    Grid,
    GridPixels,
    Layout,
    Picture,
    TrainingOutput,
    VisualTokenizerSpec,
)

__all__ = ["AbstractGridTokenizer", "GridNetwork", "perturbed"]

BATCH_PIXELS = 64 * 64 * 64
"""Pixels that go through the network at once, so that memory does not follow the request."""


class GridNetwork(AbstractAutoencoder):
    """Convolutions around a quantizer."""

    def __init__(self, settings: ConvolutionalSettings, quantizer: AbstractQuantizer) -> None:
        super().__init__()
        self.encoder = ConvolutionalEncoder(settings, quantizer.dim)
        self.quantizer = quantizer
        self.decoder = ConvolutionalDecoder(settings, quantizer.dim)
        self._perturbation = settings.perturbation

    def forward(self, images: Tensor) -> TrainingOutput:
        assert self.encoder is not None and self.decoder is not None
        latents = rearrange(self.encoder(images), "b c h w -> b h w c")
        # Choosing a code has to see the exact latents, whatever the convolutions run in.
        quantized = self.quantizer(latents.to(torch.float32))
        vectors = quantized.vectors
        if self.training and self._perturbation:
            vectors = perturbed(vectors, self._perturbation)
        reconstruction = self.decoder(rearrange(vectors, "b h w c -> b c h w"))
        return TrainingOutput(
            reconstruction=reconstruction,
            codes=rearrange(quantized.codes, "b ... n -> b (...) n"),
            losses=quantized.losses,
        )


def perturbed(vectors: Tensor, share: float) -> Tensor:
    """Exchange about a `share` of the vectors `[batch, ..., dim]` for those of other positions."""
    flat = vectors.reshape(-1, vectors.shape[-1])
    other = flat[torch.randperm(len(flat), device=flat.device)]
    exchanged = torch.rand(len(flat), 1, device=flat.device) < share
    return torch.where(exchanged, other, flat).reshape(vectors.shape)


class AbstractGridTokenizer(AbstractLearnedTokenizer):
    """Codes on a grid, of any size in multiples of 8 pixels. A final class brings a quantizer."""

    settings_type: ClassVar[type[ConvolutionalSettings]]

    def __init__(
        self, settings: LearnedSettings, network: AbstractAutoencoder, fingerprint: str | None
    ) -> None:
        super().__init__(settings, network, fingerprint)
        assert isinstance(settings, ConvolutionalSettings)
        self._max_side = settings.max_side
        self._default_side = settings.default_side
        self._spec = VisualTokenizerSpec(
            codebook_sizes=network.quantizer.codebook_sizes,
            layouts=self._layouts(),
            pixels=GridPixels(FACTOR),
            resize="pad",
            blank_codes=self.blank_codes(network.quantizer),
            min_psnr=settings.min_psnr,
        )

    @classmethod
    @abstractmethod
    def make_quantizer(cls, settings: LearnedSettings) -> AbstractQuantizer:
        """Return the quantizer of these settings, with fresh weights."""

    @classmethod
    def blank_codes(cls, quantizer: AbstractQuantizer) -> tuple[int, ...]:
        """Return the codes that a preview shows where nothing is drawn yet; zeros if empty."""
        return ()

    @classmethod
    def build(cls, settings: LearnedSettings) -> AbstractAutoencoder:
        assert isinstance(settings, ConvolutionalSettings)
        return GridNetwork(settings, cls.make_quantizer(settings))

    def layout_of(self, rows: int, columns: int) -> Layout:
        """Return the layout of the codes of so many latents."""
        return Grid(rows, columns)

    def grid_of(self, layout: Layout) -> tuple[int, int]:
        """Return rows and columns of the latents of a layout.

        Raises:
            ValueError: this tokenizer makes no such layout, whatever the size.
        """
        if not isinstance(layout, Grid) or layout.frames != 1:
            raise ValueError(f"{self.name} decodes grids of one frame, got {layout}")
        return (layout.rows, layout.columns)

    def codes_of(self, latents: Tensor) -> Tensor:
        """Return codes `[batch, positions, codebooks]` of latents `[batch, rows, columns, dim]`."""
        codes: Tensor = rearrange(self._network.quantizer(latents).codes, "b ... n -> b (...) n")
        return codes

    def vectors_of(self, codes: Tensor, rows: int, columns: int) -> Tensor:
        """Return `[batch, rows, columns, dim]` of codes `[batch, positions, codebooks]`."""
        grid = rearrange(codes, "b (h w) n -> b h w n", h=rows, w=columns)
        return self._network.quantizer.vectors(grid)

    @property
    def spec(self) -> VisualTokenizerSpec:
        return self._spec

    def encode(
        self,
        images: Sequence[Picture],
        *,
        length: int | None = None,
        quality: float | None = None,
        captions: Sequence[str] | None = None,
    ) -> list[Codes]:
        if length is not None or quality is not None or captions is not None:
            raise ValueError(
                f"{self.name} has a fixed number of codes for a size and reads no captions"
            )
        encoder = self._encoder
        for image in images:
            self._check_picture(image)
        found: dict[int, Codes] = {}
        parameter = next(encoder.parameters())
        for indices in equal_batches([image.shape[:2] for image in images], BATCH_PIXELS):
            batch = torch.from_numpy(np.stack([images[index] for index in indices]))
            batch = rearrange(batch, "b h w c -> b c h w").to(parameter.device, parameter.dtype)
            with torch.inference_mode():
                latents = encoder(batch.contiguous(memory_format=torch.channels_last))
                codes = self.codes_of(rearrange(latents.float(), "b c h w -> b h w c"))
            layout = self.layout_of(*latents.shape[2:])
            for index, array in zip(indices, codes.cpu().numpy(), strict=True):
                found[index] = Codes(array, layout)
        return [found[index] for index in range(len(images))]

    def decode(
        self,
        codes: Sequence[Codes],
        *,
        seed: int | None = None,
        steps: int | None = None,
        captions: Sequence[str] | None = None,
    ) -> list[Picture]:
        if seed is not None or steps is not None or captions is not None:
            raise ValueError(f"{self.name} decodes without noise, steps or captions")
        shapes = [self._check_codes(item) for item in codes]
        return self._decoded(codes, shapes)

    def _decoded(self, codes: Sequence[Codes], shapes: Sequence[tuple[int, int]]) -> list[Picture]:
        """Decode codes of known rows and columns, without looking at them again."""
        decoder = self._decoder
        found: dict[int, Picture] = {}
        parameter = next(decoder.parameters())
        for indices in equal_batches(shapes, BATCH_PIXELS // FACTOR**2):
            rows, columns = shapes[indices[0]]
            batch = torch.from_numpy(np.stack([codes[index].array for index in indices])).long()
            with torch.inference_mode():
                vectors = self.vectors_of(batch.to(parameter.device), rows, columns)
                vectors = rearrange(vectors, "b h w c -> b c h w").to(parameter.dtype)
                pixels = decoder(vectors.contiguous(memory_format=torch.channels_last))
            pixels = rearrange(pixels.float().cpu().clamp(0, 1), "b c h w -> b h w c")
            for index, array in zip(indices, pixels.numpy(), strict=True):
                found[index] = np.ascontiguousarray(array)
        return [found[index] for index in range(len(codes))]

    def code_vectors(self, codebook: int) -> npt.NDArray[np.float32]:
        count = len(self.spec.codebook_sizes)
        if not 0 <= codebook < count:
            raise ValueError(f"{self.name} has {count} codebooks, numbered from 0, got {codebook}")
        with torch.inference_mode():
            vectors: npt.NDArray[np.float32] = (
                self._network.quantizer.code_vectors(codebook).float().cpu().numpy()
            )
        return vectors

    def _check_picture(self, image: Picture) -> None:
        height, width = image.shape[:2]
        limit = self._max_side
        if height % FACTOR or width % FACTOR or not 0 < height <= limit or not 0 < width <= limit:
            raise ValueError(
                f"{self.name} takes sides that are multiples of {FACTOR} up to {limit} pixels, "
                f"got {width}x{height}; resize the picture first"
            )

    def _check_codes(self, codes: Codes) -> tuple[int, int]:
        limit = self._max_side // FACTOR
        rows, columns = self.grid_of(codes.layout)
        if rows > limit or columns > limit:
            raise ValueError(
                f"{self.name} decodes at most {limit} rows and columns, got {codes.layout}"
            )
        self._check_array(codes)
        return (rows, columns)

    def _layouts(self) -> tuple[Layout, ...]:
        default = self._default_side // FACTOR
        sides = range(1, self._max_side // FACTOR + 1)
        first = (default, default)
        others = (size for size in itertools.product(sides, sides) if size != first)
        return tuple(self.layout_of(*size) for size in (first, *others))
