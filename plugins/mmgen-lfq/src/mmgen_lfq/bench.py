"""Speed and memory beside the same network around vector-quantize-pytorch's `LFQ`.

Both have the bits of one code and the same losses; ours spells it as two sub-codes. Run as
`python -m mmgen_lfq.bench`; needs vector-quantize-pytorch.
"""

from __future__ import annotations

from einops import rearrange
from torch import Tensor

from mmgen.autoencoding import AbstractQuantizer, Quantized
from mmgen.autoencoding.comparison import QuantizerPair, run_comparison
from mmgen_lfq.lookup_free import LookupFreeQuantizer
from mmgen_lfq.sign_quantizer import SignLosses

__all__ = ["PAIR", "ReferenceQuantizer"]

LOSSES = SignLosses(commitment=0.1, entropy=0.02, diversity=1.0, temperature=1.0)


class ReferenceQuantizer(AbstractQuantizer):
    """The `LFQ` of vector-quantize-pytorch with the same settings, as a quantizer."""

    def __init__(self, size: int) -> None:
        from vector_quantize_pytorch import LFQ

        super().__init__()
        self.dim = _bits(size)
        self.codebook_sizes = (size,)
        self.quantize = LFQ(
            codebook_size=size,
            entropy_loss_weight=LOSSES.entropy,
            commitment_loss_weight=LOSSES.commitment,
            diversity_gamma=LOSSES.diversity,
        )

    def forward(self, latents: Tensor) -> Quantized:
        flat = rearrange(latents, "b h w c -> b (h w) c")
        vectors, codes, loss = self.quantize(flat, inv_temperature=1 / LOSSES.temperature)
        return Quantized(
            vectors=vectors.reshape(latents.shape),
            codes=codes.reshape(*latents.shape[:-1], 1),
            losses={"all": loss} if self.training else {},
        )

    def vectors(self, codes: Tensor) -> Tensor:
        flat = rearrange(codes, "b h w 1 -> b (h w)")
        found: Tensor = self.quantize.indices_to_codes(flat)
        return rearrange(found, "b (h w) c -> b h w c", w=codes.shape[2])

    def code_vectors(self, codebook: int) -> Tensor:
        table: Tensor = self.quantize.codebook
        return table


def _bits(size: int) -> int:
    bits = size.bit_length() - 1
    if size != 2**bits or bits % 2:
        raise ValueError(f"two equal sub-codes need a power of 4 in all, got {size}")
    return bits


def _ours(size: int) -> AbstractQuantizer:
    return LookupFreeQuantizer(groups=2, group_bits=_bits(size) // 2, losses=LOSSES)


def _align(ours: AbstractQuantizer, reference: AbstractQuantizer) -> None:
    """Do nothing: signs have no weights."""


PAIR = QuantizerPair(
    module="mmgen_lfq.bench",
    distribution="vector-quantize-pytorch",
    package="vector_quantize_pytorch",
    ours=_ours,
    reference=ReferenceQuantizer,
    align=_align,
)

if __name__ == "__main__":
    print(run_comparison(PAIR))
