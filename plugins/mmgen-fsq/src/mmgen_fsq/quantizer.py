"""The quantizer, which is shared with tokenizers that are no grid."""

from mmgen.autoencoding import FiniteScalarQuantizer

__all__ = ["FiniteScalarQuantizer"]
