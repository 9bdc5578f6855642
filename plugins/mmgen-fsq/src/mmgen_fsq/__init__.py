"""A convolutional autoencoder with finite scalar quantisation, as an mmgen visual tokenizer."""

from mmgen_fsq.tokenizer import FsqTokenizer

__all__ = ["FsqTokenizer"]
