"""What tokenizers with weights share: files, batches, convolutions, and the grid of codes.

Any plugin may build on this package; none has to. It knows pictures, codes and weights, and nothing
of token ids. A plugin on it writes a quantizer and its settings, or a whole network of its own.
"""

from mmgen.autoencoding.convolutions import (
    ConvolutionalDecoder,
    ConvolutionalEncoder,
    ConvolutionalSettings,
    ResidualBlock,
)
from mmgen.autoencoding.finite_scalar import FiniteScalarQuantizer
from mmgen.autoencoding.grid_tokenizer import AbstractGridTokenizer, GridNetwork
from mmgen.autoencoding.learned_tokenizer import (
    AbstractAutoencoder,
    AbstractLearnedTokenizer,
    equal_batches,
)
from mmgen.autoencoding.quantizer import AbstractQuantizer, Quantized
from mmgen.autoencoding.sequence_network import AbstractSequenceNetwork, SequenceSettings
from mmgen.autoencoding.sequence_tokenizer import AbstractSequenceTokenizer
from mmgen.autoencoding.settings import LearnedSettings
from mmgen.autoencoding.similarity import structural_similarity
from mmgen.autoencoding.transformer import Transformer, TransformerBlock, cosine_waves

__all__ = [
    "AbstractAutoencoder",
    "AbstractGridTokenizer",
    "AbstractLearnedTokenizer",
    "AbstractQuantizer",
    "AbstractSequenceNetwork",
    "AbstractSequenceTokenizer",
    "ConvolutionalDecoder",
    "ConvolutionalEncoder",
    "ConvolutionalSettings",
    "FiniteScalarQuantizer",
    "GridNetwork",
    "LearnedSettings",
    "Quantized",
    "ResidualBlock",
    "SequenceSettings",
    "Transformer",
    "TransformerBlock",
    "cosine_waves",
    "equal_batches",
    "structural_similarity",
]
