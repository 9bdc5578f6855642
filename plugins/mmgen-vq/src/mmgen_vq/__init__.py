"""Convolutional autoencoders with learned codebooks, as mmgen visual tokenizers."""

from mmgen_vq.tokenizers import ProductVqTokenizer, ResidualVqTokenizer, VqTokenizer

__all__ = ["ProductVqTokenizer", "ResidualVqTokenizer", "VqTokenizer"]
