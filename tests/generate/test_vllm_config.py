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
    ],
)
def test_settings_outside_their_domain_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        VllmEngineConfig(**settings)


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed")
def test_a_missing_vllm_is_said_in_one_line() -> None:
    with pytest.raises(SettingsError, match="vLLM is not installed") as caught:
        installed_vllm()
    assert "\n" not in str(caught.value)
