"""Convolutional autoencoders whose codes are signs of latents, as mmgen visual tokenizers."""

from mmgen_lfq.tokenizers import BsqTokenizer, GroupedLfqTokenizer, LfqTokenizer

__all__ = ["BsqTokenizer", "GroupedLfqTokenizer", "LfqTokenizer"]
