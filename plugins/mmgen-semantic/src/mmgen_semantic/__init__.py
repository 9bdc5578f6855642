"""Codes of what is shown beside codes of how it looks, as an mmgen visual tokenizer."""

from mmgen_semantic.tokenizer import SemanticTokenizer

__all__ = ["SemanticTokenizer"]
