"""Choices by machine, and operations counted by hand."""

from __future__ import annotations

import pytest
import torch

from mmgen.errors import SettingsError
from mmgen.model import Decoder, DecoderConfig
from mmgen.train.precision import (
    autocast,
    choose_device,
    choose_dtype,
    matmul_rate,
    step_flops,
    wants_compile,
)

CPU = torch.device("cpu")


def test_what_is_asked_for_is_taken() -> None:
    assert choose_dtype("float32", CPU) is torch.float32
    assert choose_dtype("bfloat16", CPU) is torch.bfloat16
    assert choose_dtype("auto", CPU) in (torch.float32, torch.bfloat16)
    assert choose_device("cpu") == CPU


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_device_is_named() -> None:
    with pytest.raises(SettingsError, match="device=cpu"):
        choose_device("cuda")


def test_compiling_pays_for_long_runs_only(monkeypatch: pytest.MonkeyPatch) -> None:
    assert wants_compile("on", CPU, 1) and not wants_compile("off", CPU, 10**6)
    assert not wants_compile("auto", CPU, 10)
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    assert not wants_compile("auto", CPU, 10**6)


def test_autocast_changes_products_only_in_bfloat16() -> None:
    layer = torch.nn.Linear(4, 4)
    with autocast(CPU, torch.bfloat16):
        assert layer(torch.ones(1, 4)).dtype == torch.bfloat16
    with autocast(CPU, torch.float32):
        assert layer(torch.ones(1, 4)).dtype == torch.float32


def test_operations_are_six_per_weight_and_id_plus_attention() -> None:
    config = DecoderConfig(
        vocab_size=64,
        hidden_size=32,
        num_layers=2,
        num_heads=2,
        num_kv_heads=1,
        intermediate_size=48,
        context_length=16,
    )
    decoder = Decoder(config)
    matrices = sum(value.numel() for value in decoder.blocks.parameters())
    flops = step_flops(config, num_ids=100, num_logits=10 * 48, context_length=16)
    attention = 6 * 2 * 128 * 16 * 100
    assert flops == 6 * matrices * 100 + 6 * 32 * 10 * 48 + attention


def test_the_rate_of_products_is_measured() -> None:
    assert matmul_rate(CPU, torch.float32) > 1e8
