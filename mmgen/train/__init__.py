"""From a frozen configuration to a finished checkpoint: one trainer with one loop.

The names below load on first use, so that listing recipes does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmgen.train.config import (
        DataConfig,
        ExportConfig,
        OptimConfig,
        ShardSource,
        TokenizerSource,
        TrainConfig,
    )
    from mmgen.train.export import export_run
    from mmgen.train.overrides import apply_overrides
    from mmgen.train.run import RunResult, configure, run
    from mmgen.train.stage import AbstractStage, Pipeline
    from mmgen.train.trainer import TrainResult, train

__all__ = [
    "AbstractStage",
    "DataConfig",
    "ExportConfig",
    "OptimConfig",
    "Pipeline",
    "RunResult",
    "ShardSource",
    "TokenizerSource",
    "TrainConfig",
    "TrainResult",
    "apply_overrides",
    "configure",
    "export_run",
    "run",
    "train",
]

_MODULES = {
    "AbstractStage": "stage",
    "DataConfig": "config",
    "ExportConfig": "config",
    "OptimConfig": "config",
    "Pipeline": "stage",
    "RunResult": "run",
    "ShardSource": "config",
    "TokenizerSource": "config",
    "TrainConfig": "config",
    "TrainResult": "trainer",
    "apply_overrides": "overrides",
    "configure": "run",
    "export_run": "export",
    "run": "run",
    "train": "trainer",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
