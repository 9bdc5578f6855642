"""Which engines there are, by the names that users give them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias

from mmgen.errors import SettingsError
from mmgen.generate.session import Session, open_session
from mmgen.generate.vllm_config import VllmEngineConfig
from mmgen.generate.vllm_start import open_vllm_session
from mmgen.visual_tokenizer import Parts

__all__ = ["EngineName", "open_engine_session"]

EngineName: TypeAlias = Literal["torch", "vllm"]


def open_engine_session(
    engine: EngineName,
    model: Path | str | None,
    *,
    parts: Parts = "both",
    num_rows: int = 64,
    device: str = "cpu",
    vllm: Sequence[str] = (),
) -> Session:
    """Open a session on an engine.

    Args:
        model: a checkpoint directory or the name of an installed model; without it, the default.
        parts: see `Session`.
        num_rows: most rows of the engine's batch; a guided picture takes two.
        device: where the torch engine's decoder runs; vLLM runs where it was built for.
        vllm: settings of the engine on vLLM, each as NAME=VALUE.

    Raises:
        EngineError: vLLM does not start, or fails its self-test.
        SettingsError: the engine is not installed, or told what it does not know.
    """
    if engine == "torch":
        if vllm:
            raise SettingsError(f"{vllm[0]!r} is a setting of vLLM; choose that engine")
        return open_session(model, parts=parts, num_rows=num_rows, device=device)
    return open_vllm_session(
        model, VllmEngineConfig.from_words(vllm, num_rows=num_rows), parts=parts
    )
