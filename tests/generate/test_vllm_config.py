from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import pytest

from mmgen.errors import SettingsError
from mmgen.generate.vllm_config import VllmEngineConfig
from mmgen.generate.vllm_start import installed_vllm


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_rows": 1}, "num_rows must be 2 or more"),
        ({"num_rows": 8, "step_tokens": 9}, "room for a prompt"),
        ({"cache_bytes": 0}, "cache_bytes must be 1 or more, got 0"),
        ({"overcommit": 0.5}, "overcommit must be 1 or more, got 0.5"),
        ({"gpu_memory_utilization": 1.5}, "at most 1, got 1.5"),
        ({"max_stalls": 0}, "max_stalls"),
        ({"pipeline_parallel_size": 0}, "pipeline_parallel_size must be 1 or more"),
        ({"dtype": "float16"}, "dtype must be float32 or bfloat16, got 'float16'"),
        ({"compilation": "maybe"}, "compilation must be on or off"),
        ({"options": {"scheduler_cls": "x"}}, "scheduler_cls cannot be chosen for vLLM: pairs"),
        ({"options": {"nnodes": 0}}, "nnodes must be a number of machines, got 0"),
        ({"options": {"node_rank": "a"}}, "node_rank must be a number of machines, got 'a'"),
        ({"options": {"data_parallel_size": 2}}, "start replicas instead"),
    ],
)
def test_settings_outside_their_domain_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        VllmEngineConfig(**settings)


def test_words_become_settings_of_ours_or_of_vllms() -> None:
    words = ["tensor-parallel-size=2", "--pipeline_parallel_size=3", "prefix_caching=false"]
    words += ["gpu_memory_utilization=1", "dtype=bfloat16", "master_addr=10.0.0.1", "nnodes=2"]
    config = VllmEngineConfig.from_words(words, num_rows=8)
    assert (config.tensor_parallel_size, config.num_devices, config.num_rows) == (2, 6, 8)
    assert (config.prefix_caching, config.dtype) == (False, "bfloat16")
    assert config.options == {"master_addr": "10.0.0.1", "nnodes": 2}
    assert (config.num_machines, config.is_follower) == (2, False)
    assert VllmEngineConfig.from_words(["nnodes=2", "node_rank=1"]).is_follower


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tensor_parallel_size"], "have the form NAME=VALUE, got 'tensor_parallel_size'"),
        (["a b=1"], "have the form NAME=VALUE"),
        (["block_size=16", "block-size=32"], "block_size is given twice"),
        (["num_rows=4"], "num_rows is given twice"),
        (["tensor_parallel_size=two"], "tensor_parallel_size must be int, got 'two'"),
        (["prefix_caching=1"], "prefix_caching must be bool, got 1"),
        (["overcommit=much"], "overcommit must be int or float, got 'much'"),
        (["logits_processors=x"], "logits_processors cannot be chosen"),
    ],
)
def test_words_that_cannot_be_read_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        VllmEngineConfig.from_words(words, num_rows=8)


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed")
def test_a_missing_vllm_is_said_in_one_line() -> None:
    with pytest.raises(SettingsError, match="vLLM is not installed") as caught:
        installed_vllm()
    assert "\n" not in str(caught.value)
