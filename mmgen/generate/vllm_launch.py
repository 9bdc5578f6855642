"""Starting vLLM in this process, set up so that pairs stay together."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from subprocess import SubprocessError
from typing import Any

import torch
from vllm import EngineArgs
from vllm.platforms import current_platform
from vllm.v1.engine.llm_engine import LLMEngine
from vllm.v1.executor import Executor
from vllm.v1.executor.multiproc_executor import MultiprocExecutor

from mmgen.checkpoint import Checkpoint
from mmgen.errors import EngineError, SettingsError
from mmgen.generate.engine import MAX_STREAMS
from mmgen.generate.vllm_admission import Capacity
from mmgen.generate.vllm_config import GIB, VllmEngineConfig
from mmgen.generate.vllm_logits import GuidedChoice

__all__ = ["follow", "launch", "set_num_threads"]

set_num_threads = torch.set_num_threads
"""The function as torch has it; on a CPU, vLLM puts one in its place that does nothing."""


def launch(
    checkpoint: Checkpoint,
    config: VllmEngineConfig,
    *,
    processors: Sequence[type] = (GuidedChoice,),
) -> tuple[LLMEngine, Capacity]:
    """Start vLLM on a checkpoint's decoder; return it and what it can do.

    Args:
        processors: logits processors; without ours, vLLM serves plain requests only.

    Raises:
        EngineError: it does not start.
    """
    step_tokens, chunk_tokens = _tokens(checkpoint, config)
    with _told_in_one_line():
        settings = _settings(checkpoint, config, processors)
        llm = LLMEngine(settings, Executor.get_class(settings), log_stats=False)
    cache = settings.cache_config
    assert cache.num_gpu_blocks is not None and cache.block_size is not None
    return llm, Capacity(
        num_rows=config.num_rows,
        step_tokens=step_tokens,
        chunk_tokens=chunk_tokens,
        # One block is vLLM's own.
        num_blocks=cache.num_gpu_blocks - 1,
        block_size=cache.block_size,
        prefix_caching=config.prefix_caching,
        overcommit=config.overcommit,
    )


def follow(checkpoint: Checkpoint, config: VllmEngineConfig) -> None:
    """Run this machine's workers for the engine of another one, until told to end.

    Args:
        config: as over there, but with another `node_rank`.

    Raises:
        EngineError: they do not start.
    """
    with _told_in_one_line():
        settings = _settings(checkpoint, config, (GuidedChoice,), headless=True)
        executor = MultiprocExecutor(settings, monitor_workers=False)
    try:
        executor.start_worker_monitor(inline=True)
    finally:
        executor.shutdown()


def _tokens(checkpoint: Checkpoint, config: VllmEngineConfig) -> tuple[int, int]:
    """Return how many tokens a step takes, and how many of one prompt."""
    context_length = checkpoint.config.context_length
    most = max(2048, MAX_STREAMS * context_length + config.num_rows)
    step_tokens = config.step_tokens or most
    # With all rows at work, both prompts of a pair still get equal chunks of every step. Three
    # prompts do too unless `step_tokens` was made small, which admission looks at.
    return step_tokens, min(context_length, (step_tokens - config.num_rows) // 2)


def _settings(
    checkpoint: Checkpoint,
    config: VllmEngineConfig,
    processors: Sequence[type],
    *,
    headless: bool = False,
) -> Any:
    """Return vLLM's own form of what it is told."""
    step_tokens, chunk_tokens = _tokens(checkpoint, config)
    is_cpu = current_platform.is_cpu()
    can_compile = not is_cpu or shutil.which("g++") is not None
    compilation = config.compilation or ("on" if can_compile else "off")
    known = {item.name for item in fields(EngineArgs)}
    for name in config.options:
        if name not in known:
            raise SettingsError(f"neither mmgen nor this vLLM has a setting {name!r}")
    words: dict[str, Any] = {
        "model": str(checkpoint.path),
        "skip_tokenizer_init": True,
        "generation_config": "vllm",
        "dtype": config.dtype or ("float32" if is_cpu else "bfloat16"),
        "max_model_len": checkpoint.config.context_length,
        "max_num_seqs": config.num_rows,
        "max_num_batched_tokens": step_tokens,
        "long_prefill_token_threshold": chunk_tokens,
        "block_size": config.block_size or (32 if is_cpu else None),
        "kv_cache_memory_bytes": config.cache_bytes or (GIB if is_cpu else None),
        "gpu_memory_utilization": config.gpu_memory_utilization,
        "enable_prefix_caching": config.prefix_caching,
        "enforce_eager": compilation == "off",
        "tensor_parallel_size": config.tensor_parallel_size,
        "pipeline_parallel_size": config.pipeline_parallel_size,
        "distributed_executor_backend": "uni" if config.num_devices == 1 else "mp",
        "logits_processors": list(processors),
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
    }
    with _environment(config):
        return EngineArgs(**(words | dict(config.options))).create_engine_config(headless=headless)


@contextmanager
def _told_in_one_line() -> Iterator[None]:
    """Make what vLLM may raise at its start one of our errors."""
    try:
        yield
    except SettingsError:
        raise
    except (
        AssertionError,
        OSError,
        RuntimeError,
        SubprocessError,
        TypeError,
        ValueError,
    ) as error:
        reason = " ".join(str(error).split())[:400] or type(error).__name__
        raise EngineError(f"vLLM does not start: {reason}") from error


@contextmanager
def _environment(config: VllmEngineConfig) -> Iterator[None]:
    """Tell vLLM what it looks up in the environment on a CPU, while its settings are made."""
    # Whether it may stay in this process.
    wanted: dict[str, str | None] = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    if config.cache_bytes is not None:
        # There it would count for more than what the configuration says.
        wanted["VLLM_CPU_KVCACHE_SPACE"] = None
    before = {name: os.environ.get(name) for name in wanted}
    _set_variables(wanted)
    try:
        yield
    finally:
        _set_variables(before)


def _set_variables(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
