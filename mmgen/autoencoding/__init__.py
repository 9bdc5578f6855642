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
from mmgen.autoencoding.grid_tokenizer import AbstractGridTokenizer, GridNetwork
from mmgen.autoencoding.learned_tokenizer import (
    AbstractAutoencoder,
    AbstractLearnedTokenizer,
    equal_batches,
)
from mmgen.autoencoding.quantizer import AbstractQuantizer, Quantized
from mmgen.autoencoding.settings import LearnedSettings

__all__ = [
    "AbstractAutoencoder",
    "AbstractGridTokenizer",
    "AbstractLearnedTokenizer",
    "AbstractQuantizer",
    "ConvolutionalDecoder",
    "ConvolutionalEncoder",
    "ConvolutionalSettings",
    "GridNetwork",
    "LearnedSettings",
    "Quantized",
    "ResidualBlock",
    "equal_batches",
]
