"""What the machine at hand does best: device, number type, compiler, and its matrix product rate.

A bfloat16 product is several times faster on some CPUs and several times slower on others, so the
choice is by the instructions that the CPU has. The measured rate is what speeds are compared with.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import time
from contextlib import AbstractContextManager
from typing import Literal

import torch

from mmgen.errors import SettingsError
from mmgen.model.config import DecoderConfig

__all__ = [
    "autocast",
    "choose_device",
    "choose_dtype",
    "matmul_rate",
    "step_flops",
    "wants_compile",
]

FEWEST_STEPS_TO_COMPILE = 500
"""Compiling takes as long as some dozens of steps, so that short runs are done sooner without."""


def choose_device(wanted: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """Return the device to train on."""
    has_cuda = torch.cuda.is_available()
    if wanted == "cuda" and not has_cuda:
        raise SettingsError("device=cuda, but torch finds no CUDA device; use device=cpu")
    return torch.device("cuda" if has_cuda and wanted != "cpu" else "cpu")


def choose_dtype(
    wanted: Literal["auto", "float32", "bfloat16"], device: torch.device
) -> torch.dtype:
    """Return the type of matrix products; the weights themselves stay float32."""
    if wanted == "auto":
        return torch.bfloat16 if _has_fast_bfloat16(device) else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[wanted]


def _has_fast_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[object]:
    """Return the context in which the network runs."""
    if dtype == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=dtype)


def wants_compile(
    wanted: Literal["auto", "on", "off"], device: torch.device, num_steps: int
) -> bool:
    """Return whether to compile the network."""
    if wanted != "auto":
        return wanted == "on"
    has_compiler = device.type == "cuda" or any(
        shutil.which(name) for name in (os.environ.get("CXX", ""), "g++", "clang++") if name
    )
    return has_compiler and num_steps >= FEWEST_STEPS_TO_COMPILE


@functools.cache
def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Return the best measured rate of a large matrix product, in operations a second."""
    size = 4096 if device.type == "cuda" else 1024
    left = torch.ones(size, size, dtype=dtype, device=device)
    right = torch.ones(size, size, dtype=dtype, device=device)
    best = float("inf")
    for _ in range(4):
        start = time.perf_counter()
        (left @ right)[0, 0].item()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def step_flops(
    config: DecoderConfig, *, num_ids: int, num_logits: int, context_length: int
) -> float:
    """Return the operations of matrix products in one step: forward once, backward twice.

    Attention is counted as causal over the whole row, and the output table only for the logits
    that were looked at.
    """
    width = config.num_heads * config.head_dim
    blocks = config.num_layers * config.num_layer_parameters * num_ids
    scores = config.num_layers * width * context_length * num_ids
    head = config.hidden_size * num_logits
    return 6.0 * (blocks + head) + 6.0 * scores
