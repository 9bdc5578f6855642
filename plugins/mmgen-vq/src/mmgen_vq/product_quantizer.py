"""The latent in groups, each with a codebook of its own: small codebooks, many combinations.

As in UniTok (Ma et al., 2025: multi-codebook quantisation) and FQGAN (Bai et al., "Factorized
Visual Tokenization and Generation", 2024), whose disentangling term keeps the codebooks from saying
the same thing: what one position takes from two codebooks should be at right angles.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor, nn

from mmgen.autoencoding import AbstractQuantizer, Quantized
from mmgen_vq.codebook import SphericalCodebook
from mmgen_vq.losses import Assignment, CodebookLosses, codebook_losses

__all__ = ["ProductVectorQuantizer", "disentangling_loss"]


def disentangling_loss(parts: Sequence[Tensor]) -> Tensor:
    """Return the mean squared cosine between unit vectors `[num, dim]` of any two groups."""
    stacked = torch.stack(list(parts))
    cosines = torch.einsum("gnd,hnd->ngh", stacked, stacked)
    count = len(stacked)
    others = 1 - torch.eye(count, device=cosines.device)
    return (cosines.square() * others).sum() / (max(1, count * (count - 1)) * cosines.shape[0])


class ProductVectorQuantizer(AbstractQuantizer):
    """Latents `[..., groups * group_dim]`; each group at length 1 to its nearest vector."""

    def __init__(
        self,
        sizes: Sequence[int],
        group_dim: int,
        *,
        decay: float,
        disentangling: float,
        losses: CodebookLosses,
    ) -> None:
        """Make the codebooks.

        Args:
            sizes: codes of each group's codebook.
            group_dim: numbers of a group.
            decay: of the running means, a batch.
            disentangling: weight of the term of that name.
            losses: weights of what else training adds.
        """
        super().__init__()
        self.dim = group_dim * len(sizes)
        self.codebook_sizes = tuple(sizes)
        self.codebooks = nn.ModuleList(
            SphericalCodebook(size, group_dim, decay=decay) for size in sizes
        )
        self._disentangling = disentangling
        self._losses = losses

    def forward(self, latents: Tensor) -> Quantized:
        groups = rearrange(latents, "... (group dim) -> group (...) dim", group=len(self.codebooks))
        assignments, codes = [], []
        for codebook, part in zip(self._books(), groups, strict=True):
            placed = codebook.placed(part)
            chosen = codebook.nearest(placed.detach())
            codes.append(chosen)
            assignments.append(Assignment(placed, codebook.lookup(chosen), codebook))
        losses: dict[str, Tensor] = {}
        if self.training:
            losses = codebook_losses(assignments, self._losses)
            if self._disentangling and len(assignments) > 1:
                losses["disentangling"] = self._disentangling * disentangling_loss(
                    [item.latents for item in assignments]
                )
            for item, chosen in zip(assignments, codes, strict=True):
                item.codebook.update(item.latents, chosen)
        placed = torch.cat([item.latents for item in assignments], dim=-1).reshape(latents.shape)
        vectors = torch.cat([item.vectors for item in assignments], dim=-1).reshape(latents.shape)
        return Quantized(
            # Straight through: what the decoder asks of the vector is asked of the latent.
            vectors=placed + (vectors - placed).detach(),
            codes=torch.stack(codes, dim=-1).reshape(*latents.shape[:-1], len(codes)),
            losses=losses,
        )

    def vectors(self, codes: Tensor) -> Tensor:
        parts = zip(self._books(), codes.unbind(dim=-1), strict=True)
        return torch.cat([book.lookup(part) for book, part in parts], dim=-1)

    def code_vectors(self, codebook: int) -> Tensor:
        return self._books()[codebook].vectors

    def _books(self) -> list[SphericalCodebook]:
        return [book for book in self.codebooks if isinstance(book, SphericalCodebook)]
