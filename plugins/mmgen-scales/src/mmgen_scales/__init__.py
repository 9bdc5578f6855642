"""Grids of codes from coarse to fine, as an mmgen visual tokenizer."""

from mmgen_scales.tokenizer import ScalesTokenizer

__all__ = ["ScalesTokenizer"]
