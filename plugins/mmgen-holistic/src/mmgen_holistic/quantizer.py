"""One codebook of two kinds of codes: levels of latents, and behind them names."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmgen.autoencoding import AbstractQuantizer, FiniteScalarQuantizer, Quantized

__all__ = ["NamingQuantizer"]

NAME_DIM = 8
"""Numbers by which names are told apart in `code_vectors`."""


class NamingQuantizer(AbstractQuantizer):
    """Latents `[..., scalars + 1]`: numbers to round, and a last one that is a name or 0 for none.

    Names are counted from 1. A code of a name has no numbers, and a code of numbers no name.
    """

    def __init__(self, levels: tuple[int, ...], num_names: int) -> None:
        super().__init__()
        self.scalars = FiniteScalarQuantizer(levels)
        self.dim = self.scalars.dim + 1
        (self.num_scalar_codes,) = self.scalars.codebook_sizes
        self.codebook_sizes = (self.num_scalar_codes + num_names,)
        self.name_vectors = nn.Parameter(torch.zeros(num_names, NAME_DIM), requires_grad=False)

    def forward(self, latents: Tensor) -> Quantized:
        name = latents[..., -1:].round()
        is_name = name > 0
        scalars = self.scalars(latents[..., :-1])
        named = self.num_scalar_codes - 1 + name.long()
        return Quantized(
            vectors=torch.cat([scalars.vectors.masked_fill(is_name, 0.0), name], dim=-1),
            codes=torch.where(is_name, named, scalars.codes),
        )

    def vectors(self, codes: Tensor) -> Tensor:
        name = (codes - (self.num_scalar_codes - 1)).clamp_min(0)
        scalars = self.scalars.vectors(codes.clamp_max(self.num_scalar_codes - 1))
        return torch.cat([scalars.masked_fill(name > 0, 0.0), name.to(scalars.dtype)], dim=-1)

    def code_vectors(self, codebook: int) -> Tensor:
        """Return numbers of levels beside those of names: each code has only one of the two."""
        scalars = self.scalars.code_vectors(0)
        names = self.name_vectors
        return torch.cat(
            [
                torch.cat([scalars, scalars.new_zeros(len(scalars), NAME_DIM)], dim=1),
                torch.cat([names.new_zeros(len(names), scalars.shape[1]), names], dim=1),
            ]
        )
