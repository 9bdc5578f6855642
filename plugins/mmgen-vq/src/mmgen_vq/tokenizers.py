"""The three tokenizers: the convolutions that tokenizers share, around learned codebooks."""

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
from mmgen_vq.losses import CodebookLosses
from mmgen_vq.product_quantizer import ProductVectorQuantizer
from mmgen_vq.residual_quantizer import ResidualVectorQuantizer
from mmgen_vq.vector_quantizer import VectorQuantizer

__all__ = [
    "CodebookSettings",
    "ProductVqSettings",
    "ProductVqTokenizer",
    "ResidualVqSettings",
    "ResidualVqTokenizer",
    "VqSettings",
    "VqTokenizer",
]

WEIGHTS = Path(__file__).parent / "weights"


@dataclass(frozen=True, slots=True, kw_only=True)
class CodebookSettings(ConvolutionalSettings):
    """What learned codebooks have in common; how they are trained changes no picture."""

    ineffective: ClassVar[frozenset[str]] = ConvolutionalSettings.ineffective | {
        "commitment",
        "decay",
        "entropy",
        "temperature",
    }

    decay: float = 0.97
    """Of the running means that code vectors are, a batch."""
    commitment: float = 0.25
    """Weight of the distance of latents from their code vectors."""
    entropy: float = 0.02
    """Weight of the entropy term; 0 leaves it out."""
    temperature: float = 0.05
    """Softness of the entropy term's assignments, in squared distances."""

    def __post_init__(self) -> None:
        # Zero arguments would look for the class that `slots` has replaced.
        super(CodebookSettings, self).__post_init__()
        if not 0 <= self.decay < 1:
            raise ValueError(f"decay must lie in 0..1, got {self.decay}")
        if self.commitment < 0 or self.entropy < 0 or not self.temperature > 0:
            raise ValueError(
                "commitment and entropy must not be negative and temperature positive, got "
                f"{self.commitment}, {self.entropy} and {self.temperature}"
            )

    @property
    def losses(self) -> CodebookLosses:
        """The weights of the terms."""
        return CodebookLosses(
            commitment=self.commitment, entropy=self.entropy, temperature=self.temperature
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class VqSettings(CodebookSettings):
    """One codebook."""

    codebook_size: int = 4096
    """Codes."""
    dim: int = 8
    """Numbers of a code vector."""

    def __post_init__(self) -> None:
        super(VqSettings, self).__post_init__()
        _check_sizes((self.codebook_size,), self.dim)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResidualVqSettings(CodebookSettings):
    """Codebooks that refine each other."""

    ineffective: ClassVar[frozenset[str]] = CodebookSettings.ineffective | {"dropout"}

    codebook_sizes: tuple[int, ...] = (256, 256, 256, 256)
    """Codes of each codebook, the coarsest first."""
    dim: int = 16
    """Numbers of a code vector."""
    entropy: float = 0.0
    """Weight of the entropy term; its temperature would have to follow each codebook's scale."""
    dropout: float = 0.3
    """Share of pictures in training that use only some of the first codebooks."""

    def __post_init__(self) -> None:
        super(ResidualVqSettings, self).__post_init__()
        _check_sizes(self.codebook_sizes, self.dim)
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must lie in 0..1, got {self.dropout}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductVqSettings(CodebookSettings):
    """Codebooks side by side."""

    ineffective: ClassVar[frozenset[str]] = CodebookSettings.ineffective | {"disentangling"}

    codebook_sizes: tuple[int, ...] = (512, 512, 512, 512)
    """Codes of each group's codebook."""
    group_dim: int = 6
    """Numbers of a group's code vector."""
    disentangling: float = 0.01
    """Weight of the term that keeps the groups from saying the same thing."""

    def __post_init__(self) -> None:
        super(ProductVqSettings, self).__post_init__()
        _check_sizes(self.codebook_sizes, self.group_dim)
        if self.disentangling < 0:
            raise ValueError(f"disentangling must not be negative, got {self.disentangling}")


class VqTokenizer(AbstractGridTokenizer):
    """One code of one learned codebook for each 8 x 8 pixels."""

    name: ClassVar[str] = "vq"
    settings_type: ClassVar[type[ConvolutionalSettings]] = VqSettings
    shipped: ClassVar[Path] = WEIGHTS / "vq"

    @classmethod
    def make_quantizer(cls, settings: LearnedSettings) -> AbstractQuantizer:
        assert isinstance(settings, VqSettings)
        return VectorQuantizer(
            settings.codebook_size, settings.dim, decay=settings.decay, losses=settings.losses
        )


class ResidualVqTokenizer(AbstractGridTokenizer):
    """Several codes for each 8 x 8 pixels, coarse to fine."""

    name: ClassVar[str] = "rvq"
    settings_type: ClassVar[type[ConvolutionalSettings]] = ResidualVqSettings
    shipped: ClassVar[Path] = WEIGHTS / "rvq"

    @classmethod
    def make_quantizer(cls, settings: LearnedSettings) -> AbstractQuantizer:
        assert isinstance(settings, ResidualVqSettings)
        return ResidualVectorQuantizer(
            settings.codebook_sizes,
            settings.dim,
            decay=settings.decay,
            dropout=settings.dropout,
            losses=settings.losses,
        )


class ProductVqTokenizer(AbstractGridTokenizer):
    """Several codes for each 8 x 8 pixels, each of a part of the latent."""

    name: ClassVar[str] = "pvq"
    settings_type: ClassVar[type[ConvolutionalSettings]] = ProductVqSettings
    shipped: ClassVar[Path] = WEIGHTS / "pvq"

    @classmethod
    def make_quantizer(cls, settings: LearnedSettings) -> AbstractQuantizer:
        assert isinstance(settings, ProductVqSettings)
        return ProductVectorQuantizer(
            settings.codebook_sizes,
            settings.group_dim,
            decay=settings.decay,
            disentangling=settings.disentangling,
            losses=settings.losses,
        )


def _check_sizes(sizes: tuple[int, ...], dim: int) -> None:
    if not sizes or min(sizes) < 2 or dim < 1:
        raise ValueError(
            f"codebooks need 2 or more codes of 1 or more numbers, got {sizes} codes of {dim}"
        )
