"""Which engine stands behind a server: the one place that knows their names."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Literal, TypeAlias

from mmgen.errors import PluginError
from mmgen.generate.session import Session, open_session

__all__ = ["EngineName", "open_engine_session"]

EngineName: TypeAlias = Literal["torch", "vllm"]


def open_engine_session(
    engine: EngineName, model: Path | str | None, *, num_rows: int = 64, device: str = "cpu"
) -> Session:
    """Open a session on an engine.

    Args:
        num_rows: most rows of the torch engine's batch; a guided picture takes two.
        device: where the torch engine's decoder runs.

    Raises:
        PluginError: the engine's packages are not installed.
    """
    if engine == "torch":
        return open_session(model, num_rows=num_rows, device=device)
    try:
        door = import_module("mmgen.generate.vllm_engine")
    except ImportError as error:
        raise PluginError(
            f"the engine vllm cannot be loaded ({error}); install it with "
            "pip install 'mmgen[vllm]', or serve with --engine torch"
        ) from error
    session = door.open_vllm_session(model)
    assert isinstance(session, Session)
    return session
