"""What quantizers without a codebook share: the sign of each number is a bit of the code."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional

from mmgen.autoencoding import AbstractQuantizer, Quantized
from mmgen_lfq.bits import codes_of_signs, signs_of_codes
from mmgen_lfq.entropy import bit_logits

__all__ = ["AbstractSignQuantizer", "SignLosses"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SignLosses:
    """Weights of what training adds."""

    commitment: float
    """Of the mean squared distance of latents from what their codes name."""
    entropy: float
    """Of the entropy term: each latent sure of its code, all together spread over the codes."""
    diversity: float
    """Of the second half of the entropy term, relative to the first."""
    temperature: float
    """Softness of its assignments."""


class AbstractSignQuantizer(AbstractQuantizer):
    """Latents `[..., bits]` to their signs times `scale`, spelled as `groups` sub-codes.

    A final class says where latents lie and what the entropy term is.
    """

    scale: float
    """What a positive sign stands for."""

    def __init__(self, *, groups: int, group_bits: int, losses: SignLosses) -> None:
        super().__init__()
        self.dim = groups * group_bits
        self.codebook_sizes = (2**group_bits,) * groups
        self._group_bits = group_bits
        self._losses = losses

    @abstractmethod
    def placed(self, latents: Tensor) -> Tensor:
        """Return latents `[..., bits]` where signs are taken and distances measured."""

    @abstractmethod
    def entropies(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return the entropy of assignments and that of the mean assignment, in nats.

        Args:
            logits: log odds `[num, bits]` that a number counts as positive.
        """

    def forward(self, latents: Tensor) -> Quantized:
        placed = self.placed(latents)
        positive = placed > 0
        vectors = torch.where(positive, self.scale, -self.scale)
        losses: dict[str, Tensor] = {}
        if self.training:
            losses = self._training_losses(placed, vectors)
        return Quantized(
            # Straight through: what the decoder asks of the vector is asked of the latent.
            vectors=placed + (vectors - placed).detach(),
            codes=codes_of_signs(positive, len(self.codebook_sizes)),
            losses=losses,
        )

    def vectors(self, codes: Tensor) -> Tensor:
        return signs_of_codes(codes, self._group_bits) * self.scale

    def code_vectors(self, codebook: int) -> Tensor:
        return self.vectors(torch.arange(self.codebook_sizes[codebook]).unsqueeze(-1))

    def _training_losses(self, placed: Tensor, vectors: Tensor) -> dict[str, Tensor]:
        weights = self._losses
        flat = rearrange(placed, "... bits -> (...) bits")
        logits = bit_logits(flat, scale=self.scale, temperature=weights.temperature)
        one, together = self.entropies(logits)
        return {
            "commitment": functional.mse_loss(placed, vectors) * weights.commitment,
            "entropy": (one - together * weights.diversity) * weights.entropy,
        }
