"""Binary spherical quantisation: latents on the sphere, codes at the corners of a cube inside it.

As in BSQ (Zhao et al., "Image and Video Tokenization with Binary Spherical Quantization", 2024): no
latent can be far from its code, and the entropy of use is estimated group by group.
"""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional

from mmgen_lfq.entropy import assignment_entropy, grouped_mean_entropy
from mmgen_lfq.sign_quantizer import AbstractSignQuantizer, SignLosses

__all__ = ["BinarySphericalQuantizer"]


class BinarySphericalQuantizer(AbstractSignQuantizer):
    """Latents of length 1 to signs divided by the root of their number."""

    def __init__(self, *, groups: int, group_bits: int, losses: SignLosses) -> None:
        super().__init__(groups=groups, group_bits=group_bits, losses=losses)
        self.scale = 1 / math.sqrt(self.dim)

    def placed(self, latents: Tensor) -> Tensor:
        return functional.normalize(latents, dim=-1)

    def entropies(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        return assignment_entropy(logits), grouped_mean_entropy(logits, len(self.codebook_sizes))
