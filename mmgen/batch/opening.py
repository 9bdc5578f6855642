"""A backend in this process, with as many rows as pay and as memory holds."""

from __future__ import annotations

from pathlib import Path

import torch

from mmgen.batch.backend import SessionBackend
from mmgen.checkpoint import open_checkpoint
from mmgen.errors import SettingsError
from mmgen.generate.engines import EngineName, open_engine_session
from mmgen.model import DecoderConfig
from mmgen.visual_tokenizer import Parts

__all__ = ["open_backend", "rows_that_fit"]

_MOST_ROWS = {"cpu": 128, "cuda": 512}
"""Beyond these a batch gains nothing."""
_MEMORY_SHARE = 0.5
"""Of the memory that is free, for keys and values."""
_NUM_WAITING = 8
"""Requests that wait in the engine, so that a row that becomes free is taken at once."""


def open_backend(
    model: Path | str | None,
    *,
    parts: Parts,
    rows_per_request: int,
    device: str = "cpu",
    num_rows: int | None = None,
    engine: EngineName = "torch",
) -> SessionBackend:
    """Open a session for batches.

    Args:
        model: a checkpoint directory or the name of an installed model; without it, the default.
        parts: halves of the visual tokenizers to load.
        rows_per_request: rows of the engine that a request takes: two for a guided picture.
        num_rows: rows of the engine; without it, as many as pay and fit.
        engine: what runs the decoder; vLLM measures the memory that is free by itself.
    """
    if num_rows is None and engine == "torch":
        num_rows = rows_that_fit(open_checkpoint(model).config, device)
    num_rows = num_rows or _MOST_ROWS["cpu"]
    if num_rows < rows_per_request:
        raise SettingsError(
            f"the engine needs {rows_per_request} rows or more for one request, got {num_rows}"
        )
    session = open_engine_session(
        engine, model, parts=parts, num_rows=max(num_rows, 2), device=device
    )
    return SessionBackend(
        session,
        capacity=num_rows // rows_per_request + _NUM_WAITING,
        # Processors and number formats round differently, and an id may fall differently then.
        description={"engine": engine, "device": torch.device(device).type},
    )


def rows_that_fit(config: DecoderConfig, device: str) -> int:
    """Return how many rows of keys and values to have on a device."""
    kind = torch.device(device).type
    if kind == "cuda":
        free, num_bytes = torch.cuda.mem_get_info(device)[0], 2
    else:
        free, num_bytes = _free_memory(), 4
    entries = 2 * config.num_layers * config.num_kv_heads * config.head_dim
    row = entries * config.context_length * num_bytes
    # The cache doubles as it grows, and holds the old one until the new one is filled.
    return max(2, min(_MOST_ROWS.get(kind, 64), int(free * _MEMORY_SHARE) // (2 * row)))


def _free_memory() -> int:
    """Return bytes that programs may take, as far as the system tells; 4 GiB where it does not."""
    try:
        with Path("/proc/meminfo").open() as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 4 << 30
