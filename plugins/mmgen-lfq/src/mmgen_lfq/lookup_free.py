"""Lookup-free quantisation: the signs of a latent are its code, and no codebook is searched.

As in MAGVIT-v2 (Yu et al., "Language Model Beats Diffusion: Tokenizer is Key to Visual Generation",
2023), with codes spelled as several smaller ones, as in Open-MAGVIT2 (Luo et al., 2024).
"""

from __future__ import annotations

from torch import Tensor

from mmgen_lfq.entropy import assignment_entropy, mean_assignment_entropy
from mmgen_lfq.sign_quantizer import AbstractSignQuantizer

__all__ = ["LookupFreeQuantizer"]


class LookupFreeQuantizer(AbstractSignQuantizer):
    """Numbers to 1 or -1; the entropy is that of whole codes, over all `2 ** bits` of them."""

    scale = 1.0

    def placed(self, latents: Tensor) -> Tensor:
        return latents

    def entropies(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        return assignment_entropy(logits), mean_assignment_entropy(logits)
