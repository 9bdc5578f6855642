"""The shipped model: a checkpoint directory inside a package, found by the `mmgen.models` group."""

from pathlib import Path

__all__ = ["checkpoint_path"]


def checkpoint_path() -> Path:
    """Return the directory of the checkpoint that this distribution carries."""
    return Path(__file__).parent / "checkpoint"
