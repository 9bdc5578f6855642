"""A transformer tokenizer of ordered codes, as an mmgen visual tokenizer."""

from mmgen_ordered.tokenizer import OrderedTokenizer

__all__ = ["OrderedTokenizer"]
