"""Grouped lookup-free quantisation: each group of bits is a code of its own.

As in WeTok (Zhuang et al., "WeTok: Powerful Discrete Tokenization for High-Fidelity Visual
Reconstruction", 2025): any number of bits, since entropies are those of the groups.
"""

from __future__ import annotations

from torch import Tensor

from mmgen_lfq.entropy import assignment_entropy, grouped_mean_entropy
from mmgen_lfq.sign_quantizer import AbstractSignQuantizer

__all__ = ["GroupedQuantizer"]


class GroupedQuantizer(AbstractSignQuantizer):
    """Numbers to 1 or -1; the entropy is that of each group's codes, summed over the groups."""

    scale = 1.0

    def placed(self, latents: Tensor) -> Tensor:
        return latents

    def entropies(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        return assignment_entropy(logits), grouped_mean_entropy(logits, len(self.codebook_sizes))
