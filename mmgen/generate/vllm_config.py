"""Settings of the engine on vLLM and what it counts, readable without vLLM being installed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import NoneType
from typing import Any, Literal, Self, get_args, get_origin, get_type_hints

from mmgen.errors import SettingsError

__all__ = ["VllmEngineConfig", "VllmStats"]

GIB = 2**30

_DECIDED = {
    "model": "it is the checkpoint",
    "tokenizer": "the checkpoint has its own",
    "skip_tokenizer_init": "ids go in and out",
    "generation_config": "requests say how ids are chosen",
    "logits_processors": "they are mmgen's",
    "scheduler_cls": "pairs are handed to vLLM's own scheduler",
    "speculative_config": "the rows of a guided request would need the same guesses",
    "long_prefill_token_threshold": "prompts are read in chunks that keep guided rows together",
    "max_model_len": "it is the checkpoint's context length",
    "max_num_seqs": "it is num_rows",
    "max_num_batched_tokens": "it is step_tokens",
    "kv_cache_memory_bytes": "it is cache_bytes",
    "enable_prefix_caching": "it is prefix_caching",
    "enforce_eager": "it is compilation",
    "data_parallel_size": "start replicas instead, which keep guided rows together",
}
"""What mmgen says to vLLM itself, and why or where else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VllmEngineConfig:
    """How vLLM is started. What is None is chosen for the machine."""

    num_rows: int = 64
    """Most rows of a batch (vLLM's max_num_seqs); a guided picture takes two, or three where it is
    guided by pictures and words apart."""
    dtype: Literal["float32", "bfloat16"] | None = None
    """Number format; float32 on a CPU, bfloat16 on a GPU."""
    step_tokens: int | None = None
    """Most tokens of one step (max_num_batched_tokens); enough for the prompts of one guided
    request, however long, beside all rows."""
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
    others, and vLLM may have to take cache back, which restarts guided requests."""
    max_stalls: int = 8
    """Restarts in a row without a new id after which a guided request fails."""
    compilation: Literal["on", "off"] | None = None
    """Whether vLLM compiles the decoder: a minute at the first start, then kept on disk. On, except
    on a CPU without a C++ compiler."""
    tensor_parallel_size: int = 1
    """Devices that share each layer of the decoder."""
    pipeline_parallel_size: int = 1
    """Groups of such devices that take the layers in turn."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Further settings, by the names that they have among vLLM's `EngineArgs`; those on which
    guidance rests are refused."""

    def __post_init__(self) -> None:
        for name in ("num_rows", "max_stalls", "tensor_parallel_size", "pipeline_parallel_size"):
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
        if self.dtype not in (None, "float32", "bfloat16"):
            raise SettingsError(f"dtype must be float32 or bfloat16, got {self.dtype!r}")
        if self.compilation not in (None, "on", "off"):
            raise SettingsError(f"compilation must be on or off, got {self.compilation!r}")
        if not 0 < self.gpu_memory_utilization <= 1:
            raise SettingsError(
                f"gpu_memory_utilization must be above 0 and at most 1, got "
                f"{self.gpu_memory_utilization}"
            )
        if self.overcommit < 1:
            raise SettingsError(f"overcommit must be 1 or more, got {self.overcommit}")
        for name in self.options:
            if name in _DECIDED:
                raise SettingsError(f"{name} cannot be chosen for vLLM: {_DECIDED[name]}")
        for name in ("nnodes", "node_rank"):
            value = self.options.get(name, 1)
            if type(value) is not int or value < (name == "nnodes"):
                raise SettingsError(f"{name} must be a number of machines, got {value!r}")

    @property
    def num_devices(self) -> int:
        """Devices that one engine takes."""
        return self.tensor_parallel_size * self.pipeline_parallel_size

    @property
    def num_machines(self) -> int:
        """Machines that one engine takes, by vLLM's own setting."""
        return int(self.options.get("nnodes", 1))

    @property
    def is_follower(self) -> bool:
        """Whether this machine only works for the engine of another one."""
        return int(self.options.get("node_rank", 0)) > 0

    @classmethod
    def from_words(cls, words: Sequence[str], **settings: Any) -> Self:
        """Return the configuration that words such as `tensor_parallel_size=2` make.

        What is not a setting of this class is taken for one of vLLM's own.

        Args:
            settings: those that are not among the words.

        Raises:
            SettingsError: a word cannot be read.
        """
        found: dict[str, Any] = {}
        for word in words:
            name, sign, text = word.partition("=")
            name = name.strip().removeprefix("--").replace("-", "_")
            if not sign or not name.isidentifier():
                raise SettingsError(f"settings of vLLM have the form NAME=VALUE, got {word!r}")
            if name in found or name in settings:
                raise SettingsError(f"{name} is given twice")
            try:
                found[name] = json.loads(text)
            except ValueError:
                found[name] = text
        own = {name: hint for name, hint in get_type_hints(cls).items() if name != "options"}
        for name in own.keys() & found.keys():
            kinds = _kinds(own[name])
            if type(found[name]) not in kinds:
                wanted = " or ".join(kind.__name__ for kind in kinds)
                raise SettingsError(f"{name} must be {wanted}, got {found[name]!r}")
        options = {name: value for name, value in found.items() if name not in own}
        chosen = {name: value for name, value in found.items() if name in own}
        return cls(**settings, **chosen, options=options)


def _kinds(hint: Any) -> tuple[type, ...]:
    """Return which types of value a setting takes, by its annotation."""
    (hint,) = [part for part in get_args(hint) if part is not NoneType][:1] or [hint]
    if get_origin(hint) is Literal:
        return (str,)
    return (int, float) if hint is float else (hint,)


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
    """Times that the rows of one came apart and were cut back."""
    num_failed: int = 0
    """Requests given up after too many restarts."""
    num_ids: int = 0
    """Ids delivered."""
    num_prompt_tokens: int = 0
    """Tokens of all prompts of rows that started, restarts included."""
    num_cached_tokens: int = 0
    """Those that were in the prefix cache."""
