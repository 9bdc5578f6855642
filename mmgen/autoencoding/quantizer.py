"""What a quantizer is: latents to codes and the vectors that the codes name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

__all__ = ["AbstractQuantizer", "Quantized"]


@dataclass(frozen=True, slots=True)
class Quantized:
    """What a quantizer makes of latents `[..., dim]`."""

    vectors: Tensor
    """`[..., dim]`, what the codes name; gradients pass to the latents."""
    codes: Tensor
    """`[..., codebooks]`, int64."""
    losses: Mapping[str, Tensor] = field(default_factory=dict)
    """Weighted terms that training adds, by name; empty outside of training."""


class AbstractQuantizer(nn.Module, ABC):
    """Latents `[..., dim]` to codes and vectors, always in float32.

    A subclass sets `dim` and `codebook_sizes`.
    """

    dim: int
    """Numbers of one latent."""
    codebook_sizes: tuple[int, ...]
    """Codes of each codebook; one of each names a latent."""

    @abstractmethod
    def forward(self, latents: Tensor) -> Quantized:
        """Quantise float32 latents `[..., dim]`."""

    @abstractmethod
    def vectors(self, codes: Tensor) -> Tensor:
        """Return what codes `[..., codebooks]` name, `[..., dim]`, float32."""

    @abstractmethod
    def code_vectors(self, codebook: int) -> Tensor:
        """Return what the codes of one codebook name, `[codebook_size, any]`, float32."""
