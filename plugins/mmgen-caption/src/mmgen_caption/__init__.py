"""A tokenizer that reads captions while encoding and decoding, as an mmgen visual tokenizer."""

from mmgen_caption.tokenizer import CaptionTokenizer

__all__ = ["CaptionTokenizer"]
