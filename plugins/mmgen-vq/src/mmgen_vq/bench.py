"""Speed and memory beside the same network around vector-quantize-pytorch's `VectorQuantize`.

Run as `python -m mmgen_vq.bench`; needs vector-quantize-pytorch.
"""

from __future__ import annotations

from einops import rearrange
from torch import Tensor

from mmgen.autoencoding import AbstractQuantizer, Quantized
from mmgen.autoencoding.comparison import QuantizerPair, run_comparison
from mmgen_vq.losses import CodebookLosses
from mmgen_vq.vector_quantizer import VectorQuantizer

__all__ = ["PAIR", "ReferenceQuantizer"]

DIM = 8
DECAY = 0.97
COMMITMENT = 0.25
DEAD_MASS = 0.1


class ReferenceQuantizer(AbstractQuantizer):
    """The `VectorQuantize` of vector-quantize-pytorch with the same settings, as a quantizer."""

    def __init__(self, size: int) -> None:
        from vector_quantize_pytorch import VectorQuantize

        super().__init__()
        self.dim = DIM
        self.codebook_sizes = (size,)
        self.quantize = VectorQuantize(
            dim=DIM,
            codebook_size=size,
            decay=DECAY,
            use_cosine_sim=True,
            rotation_trick=False,
            commitment_weight=COMMITMENT,
            threshold_ema_dead_code=DEAD_MASS,
        )

    def forward(self, latents: Tensor) -> Quantized:
        vectors, codes, loss = self.quantize(rearrange(latents, "b h w c -> b (h w) c"))
        return Quantized(
            vectors=vectors.reshape(latents.shape),
            codes=codes.reshape(*latents.shape[:-1], 1),
            losses={"commitment": loss.sum()} if self.training else {},
        )

    def vectors(self, codes: Tensor) -> Tensor:
        found: Tensor = self.quantize.get_codes_from_indices(codes[..., 0])
        return found

    def code_vectors(self, codebook: int) -> Tensor:
        table: Tensor = self.quantize.codebook
        return table


def _ours(size: int) -> AbstractQuantizer:
    # The reference has no entropy term like ours, so neither computes one.
    losses = CodebookLosses(commitment=COMMITMENT, entropy=0.0, temperature=1.0)
    return VectorQuantizer(size, DIM, decay=DECAY, losses=losses)


def _align(ours: AbstractQuantizer, reference: AbstractQuantizer) -> None:
    assert isinstance(ours, VectorQuantizer)
    ours.codebook.vectors.copy_(reference.code_vectors(0))
    # Both codebooks begin in use, so that both have the same to revive.
    ours.codebook.mass.fill_(1.0)


PAIR = QuantizerPair(
    module="mmgen_vq.bench",
    distribution="vector-quantize-pytorch",
    package="vector_quantize_pytorch",
    ours=_ours,
    reference=ReferenceQuantizer,
    align=_align,
)

if __name__ == "__main__":
    print(run_comparison(PAIR))
