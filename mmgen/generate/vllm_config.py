"""Settings of the engine on vLLM and what it counts, readable without vLLM being installed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mmgen.errors import SettingsError

__all__ = ["VllmEngineConfig", "VllmStats"]

GIB = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class VllmEngineConfig:
    """How vLLM is started. What is None is chosen for the machine."""

    num_rows: int = 64
    """Most rows of a batch (vLLM's max_num_seqs); a guided picture takes two."""
    dtype: Literal["float32", "bfloat16"] | None = None
    """Number format; float32 on a CPU, bfloat16 on a GPU."""
    step_tokens: int | None = None
    """Most tokens of one step (max_num_batched_tokens); enough for two full prompts beside all
    rows."""
    cache_bytes: int | None = None
    """Size of the KV cache; 1 GiB on a CPU, what `gpu_memory_utilization` leaves on a GPU."""
    block_size: int | None = None
    """Tokens in a block of the cache; 32 on a CPU, vLLM's choice on a GPU."""
    gpu_memory_utilization: float = 0.9
    """Share of a GPU's memory that vLLM may take."""
    prefix_caching: bool = True
    """Whether prompts are read from the cache as far as they are in it."""
    overcommit: float = 1.0
    """How many times over the cache may be promised. Above 1, texts that stop early leave room for
    others, and vLLM may have to take cache back, which restarts pairs."""
    max_stalls: int = 8
    """Restarts in a row without a new id after which a guided request fails."""
    compilation: Literal["on", "off"] | None = None
    """Whether vLLM compiles the decoder: a minute at the first start, then kept on disk. On, except
    on a CPU without a C++ compiler."""
    tensor_parallel_size: int = 1
    """Devices that share the decoder."""

    def __post_init__(self) -> None:
        for name in ("num_rows", "max_stalls", "tensor_parallel_size"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} must be 1 or more, got {getattr(self, name)}")
        for name in ("step_tokens", "cache_bytes", "block_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise SettingsError(f"{name} must be 1 or more, got {value}")
        if self.num_rows < 2:
            raise SettingsError(f"num_rows must be 2 or more, for guidance, got {self.num_rows}")
        if self.step_tokens is not None and self.step_tokens < self.num_rows + 2:
            raise SettingsError(
                f"step_tokens must be above num_rows + 1, so that a step has room for a prompt "
                f"beside {self.num_rows} rows; got {self.step_tokens}"
            )
        if not 0 < self.gpu_memory_utilization <= 1:
            raise SettingsError(
                f"gpu_memory_utilization must be above 0 and at most 1, got "
                f"{self.gpu_memory_utilization}"
            )
        if self.overcommit < 1:
            raise SettingsError(f"overcommit must be 1 or more, got {self.overcommit}")


@dataclass(frozen=True, slots=True, kw_only=True)
class VllmStats:
    """What an engine has done, and what it is doing."""

    num_waiting: int = 0
    """Requests that have not been handed to vLLM."""
    num_running: int = 0
    """Requests that vLLM has."""
    num_requests: int = 0
    """Requests submitted so far."""
    num_pairs: int = 0
    """Those with guidance."""
    num_restarts: int = 0
    """Times that a pair came apart and was cut back."""
    num_failed: int = 0
    """Requests given up after too many restarts."""
    num_ids: int = 0
    """Ids delivered."""
    num_prompt_tokens: int = 0
    """Tokens of all prompts of rows that started, restarts included."""
    num_cached_tokens: int = 0
    """Those that were in the prefix cache."""
