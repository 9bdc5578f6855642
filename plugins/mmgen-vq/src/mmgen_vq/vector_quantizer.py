"""One codebook: a latent becomes the nearest of its unit vectors.

As in LlamaGen (Sun et al., "Autoregressive Model Beats Diffusion: Llama for Scalable Image
Generation", 2024): few dimensions, unit length, a commitment loss and an entropy term.
"""

from __future__ import annotations

from einops import rearrange
from torch import Tensor

from mmgen.autoencoding import AbstractQuantizer, Quantized
from mmgen_vq.codebook import SphericalCodebook
from mmgen_vq.losses import Assignment, CodebookLosses, codebook_losses

__all__ = ["VectorQuantizer"]


class VectorQuantizer(AbstractQuantizer):
    """Latents `[..., dim]`, scaled to length 1, to the nearest code vector."""

    def __init__(self, size: int, dim: int, *, decay: float, losses: CodebookLosses) -> None:
        super().__init__()
        self.dim = dim
        self.codebook_sizes = (size,)
        self.codebook = SphericalCodebook(size, dim, decay=decay)
        self._losses = losses

    def forward(self, latents: Tensor) -> Quantized:
        placed = self.codebook.placed(latents)
        flat = rearrange(placed, "... dim -> (...) dim")
        codes = self.codebook.nearest(flat)
        vectors = self.codebook.lookup(codes)
        losses: dict[str, Tensor] = {}
        if self.training:
            losses = codebook_losses([Assignment(flat, vectors, self.codebook)], self._losses)
            self.codebook.update(flat, codes)
        vectors = vectors.reshape(placed.shape)
        return Quantized(
            # Straight through: what the decoder asks of the vector is asked of the latent.
            vectors=placed + (vectors - placed).detach(),
            codes=codes.reshape(*placed.shape[:-1], 1),
            losses=losses,
        )

    def vectors(self, codes: Tensor) -> Tensor:
        return self.codebook.lookup(codes[..., 0])

    def code_vectors(self, codebook: int) -> Tensor:
        return self.codebook.vectors
