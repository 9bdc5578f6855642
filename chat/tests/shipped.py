"""What the shipped model draws with unless told otherwise, as its checkpoint states it."""

from __future__ import annotations

from mmgen.checkpoint import open_checkpoint

_MINI = open_checkpoint("mini")
MINI_CODES = _MINI.vocabulary.ranges[0].layouts[0].num_positions
"""Codes of a picture."""
MINI_GUIDANCE = _MINI.generation.guidance_scale
"""How strongly the words count."""
