"""The plugin itself: the network and the tokenizer of sequences, which it shares with others."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from mmgen.autoencoding import AbstractSequenceTokenizer, SequenceSettings

__all__ = ["OrderedTokenizer"]


class OrderedTokenizer(AbstractSequenceTokenizer):
    """1 to 64 codes of a picture, coarse to fine; any prefix decodes."""

    name: ClassVar[str] = "ordered"
    settings_type: ClassVar[type[SequenceSettings]] = SequenceSettings
    shipped: ClassVar[Path] = Path(__file__).parent / "weights"
