"""Starting vLLM in this process, set up so that pairs stay together."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from subprocess import SubprocessError

from vllm import EngineArgs
from vllm.platforms import current_platform
from vllm.v1.engine.llm_engine import LLMEngine
from vllm.v1.executor import Executor

from mmgen.checkpoint import Checkpoint
from mmgen.errors import EngineError
from mmgen.generate.vllm_admission import Capacity
from mmgen.generate.vllm_config import GIB, VllmEngineConfig
from mmgen.generate.vllm_logits import GuidedChoice

__all__ = ["launch"]


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
    is_cpu = current_platform.is_cpu()
    context_length = checkpoint.config.context_length
    step_tokens = config.step_tokens or max(2048, 2 * context_length + config.num_rows)
    # With all rows at work, both prompts of a pair still get equal chunks of every step.
    chunk_tokens = min(context_length, (step_tokens - config.num_rows) // 2)
    can_compile = not is_cpu or shutil.which("g++") is not None
    compilation = config.compilation or ("on" if can_compile else "off")
    arguments = EngineArgs(
        model=str(checkpoint.path),
        skip_tokenizer_init=True,
        generation_config="vllm",
        dtype=config.dtype or ("float32" if is_cpu else "bfloat16"),
        max_model_len=context_length,
        max_num_seqs=config.num_rows,
        max_num_batched_tokens=step_tokens,
        long_prefill_token_threshold=chunk_tokens,
        block_size=config.block_size or (32 if is_cpu else None),
        kv_cache_memory_bytes=config.cache_bytes or (GIB if is_cpu else None),
        gpu_memory_utilization=config.gpu_memory_utilization,
        enable_prefix_caching=config.prefix_caching,
        enforce_eager=compilation == "off",
        tensor_parallel_size=config.tensor_parallel_size,
        distributed_executor_backend="uni" if config.tensor_parallel_size == 1 else "mp",
        logits_processors=list(processors),
        disable_log_stats=True,
        use_tqdm_on_load=False,
    )
    try:
        with _in_process():
            settings = arguments.create_engine_config()
        llm = LLMEngine(settings, Executor.get_class(settings), log_stats=False)
    except (OSError, RuntimeError, SubprocessError, ValueError) as error:
        reason = str(error).strip().splitlines()
        raise EngineError(
            f"vLLM does not start: {reason[0] if reason else type(error).__name__}"
        ) from error
    cache = settings.cache_config
    assert cache.num_gpu_blocks is not None and cache.block_size is not None
    return llm, Capacity(
        num_rows=config.num_rows,
        step_tokens=step_tokens,
        chunk_tokens=chunk_tokens,
        # One block is vLLM's own.
        num_blocks=cache.num_gpu_blocks - 1,
        block_size=cache.block_size,
        overcommit=config.overcommit,
    )


@contextmanager
def _in_process() -> Iterator[None]:
    """Let vLLM stay in this process; on a CPU it asks the environment whether it may."""
    name = "VLLM_ENABLE_V1_MULTIPROCESSING"
    before = os.environ.get(name)
    os.environ[name] = "0"
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before
