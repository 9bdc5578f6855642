"""Several codebooks, coarse to fine: each takes what those before it have left over.

As in SoundStream and RQ-VAE (Lee et al., "Autoregressive Image Generation using Residual
Quantization", 2022). In training some pictures use only the first codebooks (quantizer dropout of
SoundStream), so that the first codes alone already name something that decodes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor, nn

from mmgen.autoencoding import AbstractQuantizer, Quantized
from mmgen_vq.codebook import EuclideanCodebook
from mmgen_vq.losses import Assignment, CodebookLosses, codebook_losses

__all__ = ["ResidualVectorQuantizer"]


class ResidualVectorQuantizer(AbstractQuantizer):
    """Latents `[..., dim]` to a sum of vectors, one of each codebook."""

    num_batches: Tensor

    def __init__(
        self,
        sizes: Sequence[int],
        dim: int,
        *,
        decay: float,
        dropout: float,
        losses: CodebookLosses,
    ) -> None:
        """Make the codebooks.

        Args:
            sizes: codes of each codebook, the coarsest first.
            dim: numbers of a latent.
            decay: of the running means, a batch.
            dropout: share of pictures in training that use only some of the first codebooks.
            losses: weights of what training adds.
        """
        super().__init__()
        self.dim = dim
        self.codebook_sizes = tuple(sizes)
        self.codebooks = nn.ModuleList(EuclideanCodebook(size, dim, decay=decay) for size in sizes)
        self.register_buffer("num_batches", torch.zeros(()))
        self._dropout = dropout
        self._losses = losses

    def forward(self, latents: Tensor) -> Quantized:
        flat = rearrange(latents, "... dim -> (...) dim")
        kept = self._kept(latents) if self.training else None
        rest, total = flat, torch.zeros_like(flat)
        assignments, codes = [], []
        for book, codebook in enumerate(self._books()):
            chosen = codebook.nearest(rest.detach())
            vectors = codebook.lookup(chosen)
            codes.append(chosen)
            assignments.append(Assignment(rest, vectors, codebook))
            rest = rest - vectors
            total = total + (vectors if kept is None else vectors * (book < kept))
        losses: dict[str, Tensor] = {}
        if self.training:
            losses = codebook_losses(assignments, self._losses)
            for item, chosen in zip(assignments, codes, strict=True):
                item.codebook.update(item.latents, chosen)
            self.num_batches += 1
        return Quantized(
            # Straight through: what the decoder asks of the vector is asked of the latent.
            vectors=latents + (total.reshape(latents.shape) - latents).detach(),
            codes=torch.stack(codes, dim=-1).reshape(*latents.shape[:-1], len(codes)),
            losses=losses,
        )

    def vectors(self, codes: Tensor) -> Tensor:
        """Return what codes `[..., count]` name, `[..., dim]`.

        The first `count` codebooks are enough: fewer codes name a coarser vector.
        """
        parts = zip(self._books(), codes.unbind(dim=-1), strict=False)
        return torch.stack([book.lookup(part) for book, part in parts]).sum(dim=0)

    def code_vectors(self, codebook: int) -> Tensor:
        return self._books()[codebook].vectors

    def _books(self) -> list[EuclideanCodebook]:
        return [book for book in self.codebooks if isinstance(book, EuclideanCodebook)]

    def _kept(self, latents: Tensor) -> Tensor:
        """Return how many codebooks each latent uses, `[num, 1]`, alike within a picture."""
        count, pictures = len(self.codebooks), len(latents)
        # Drawn from the number of the batch, so that a run that was resumed draws the same.
        generator = torch.Generator(latents.device).manual_seed(int(self.num_batches))
        drawn = torch.rand(2, pictures, generator=generator, device=latents.device)
        fewer = 1 + (drawn[1] * (count - 1)).long()
        kept = torch.where(drawn[0] < self._dropout, fewer, count)
        return kept.repeat_interleave(latents[0, ..., 0].numel()).unsqueeze(-1)
