from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

pytest.importorskip("vllm", reason="vLLM is not installed; .ci/run tests this with it")

from mmgen.cli.app import cli

pytestmark = pytest.mark.filterwarnings("ignore")


def test_vllm_is_measured_beside_transformers_and_itself(tiny_checkpoint: Path) -> None:
    words = ["bench", "vllm", "--model", str(tiny_checkpoint), "--compile", "off", "--json"]
    result = CliRunner().invoke(cli, [*words, "--count", "2", "--repeats", "1"])
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout.splitlines()[-1])
    (speed,) = facts["speeds"]
    assert (speed["num_pictures"], speed["num_codes"]) == (2, 64)
    assert speed["plain_ratio"] == pytest.approx(speed["plain_seconds"] / speed["seconds"])
    assert speed["raw_ratio"] == pytest.approx(speed["raw_seconds"] / speed["seconds"])
    assert 0 < speed["first_code_seconds"] < speed["seconds"]
    assert facts["num_restarts"] == 0 < facts["start_seconds"]
