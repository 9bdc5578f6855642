"""What tokenizers with weights share: files, batches, convolutions, and the grid of codes.

Any plugin may build on this package; none has to. It knows pictures, codes and weights, and nothing
of token ids. A plugin on it writes a quantizer and its settings, or a whole network of its own.
"""

from mmgen.autoencoding.codebook import TrainedCodebook
from mmgen.autoencoding.contrastive import ContrastiveNetwork, FeatureTower
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
from mmgen.autoencoding.meaning import MeaningCoder, MeaningNetwork, MeaningSettings
from mmgen.autoencoding.naming import MeaningTower, NamingNetwork, NamingSettings
from mmgen.autoencoding.principal import Expectation, PrincipalComponents
from mmgen.autoencoding.quantizer import AbstractQuantizer, Quantized
from mmgen.autoencoding.search import best_codes, closest_codes
from mmgen.autoencoding.sequence_network import (
    AbstractSequenceNetwork,
    Beside,
    SequenceEncoder,
    SequenceSettings,
)
from mmgen.autoencoding.sequence_tokenizer import AbstractSequenceTokenizer
from mmgen.autoencoding.settings import LearnedSettings
from mmgen.autoencoding.similarity import structural_similarity
from mmgen.autoencoding.transformer import Transformer, TransformerBlock

__all__ = [
    "AbstractAutoencoder",
    "AbstractGridTokenizer",
    "AbstractLearnedTokenizer",
    "AbstractQuantizer",
    "AbstractSequenceNetwork",
    "AbstractSequenceTokenizer",
    "Beside",
    "ContrastiveNetwork",
    "ConvolutionalDecoder",
    "ConvolutionalEncoder",
    "ConvolutionalSettings",
    "Expectation",
    "FeatureTower",
    "FiniteScalarQuantizer",
    "GridNetwork",
    "LearnedSettings",
    "MeaningCoder",
    "MeaningNetwork",
    "MeaningSettings",
    "MeaningTower",
    "NamingNetwork",
    "NamingSettings",
    "PrincipalComponents",
    "Quantized",
    "ResidualBlock",
    "SequenceEncoder",
    "SequenceSettings",
    "TrainedCodebook",
    "Transformer",
    "TransformerBlock",
    "best_codes",
    "closest_codes",
    "equal_batches",
    "structural_similarity",
]
