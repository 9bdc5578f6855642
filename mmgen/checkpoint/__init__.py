"""A checkpoint: one directory with everything that generation needs, in Hugging Face's layout.

Every part carries or has a fingerprint, and parts that do not belong together are refused with
both values.
"""

from __future__ import annotations

from mmgen.checkpoint.extending import Extension, RowStart, extend_decoder
from mmgen.checkpoint.manifest import (
    DecoderEntry,
    GenerationDefaults,
    SamplingDefaults,
    VisualTokenizerEntry,
    WeightsEntry,
)
from mmgen.checkpoint.reading import DEFAULT_MODEL, Checkpoint, open_checkpoint
from mmgen.checkpoint.redecoding import redecode_checkpoint
from mmgen.checkpoint.writing import save_checkpoint

__all__ = [
    "DEFAULT_MODEL",
    "Checkpoint",
    "DecoderEntry",
    "Extension",
    "GenerationDefaults",
    "RowStart",
    "SamplingDefaults",
    "VisualTokenizerEntry",
    "WeightsEntry",
    "extend_decoder",
    "open_checkpoint",
    "redecode_checkpoint",
    "save_checkpoint",
]
