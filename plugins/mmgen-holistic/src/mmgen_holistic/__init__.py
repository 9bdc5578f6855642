"""Codes of what a picture shows, then codes of how it looks, as an mmgen visual tokenizer."""

from mmgen_holistic.tokenizer import HolisticTokenizer

__all__ = ["HolisticTokenizer"]
