"""From captioned pictures and texts to packed batches: sources, templates, shards, loader.

The names below load on first use, so that looking at shards does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmgen.data.loader import IGNORE_INDEX, Batch, PackedLoader, pass_once
    from mmgen.data.shards import Manifest, ShardFolder

__all__ = ["IGNORE_INDEX", "Batch", "Manifest", "PackedLoader", "ShardFolder", "pass_once"]

_MODULES = {
    "IGNORE_INDEX": "loader",
    "Batch": "loader",
    "Manifest": "shards",
    "PackedLoader": "loader",
    "ShardFolder": "shards",
    "pass_once": "loader",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
