"""`mmgen bench serve` from arguments to output, with a server that it starts itself."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from mmgen.cli.app import cli
from mmgen.errors import EngineError, SettingsError
from mmgen.serve.bench import ServeBenchConfig, measure_serving


@pytest.mark.slow
def test_a_server_is_measured_beside_its_session(tiny_checkpoint: Path) -> None:
    words = ["bench", "serve", "--model", str(tiny_checkpoint), "--repeats", "2", "--rounds", "1"]
    words += ["--clients", "2", "--clients", "12"]
    result = CliRunner().invoke(cli, [*words, "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert 0 < found["overhead_seconds"] < found["seconds"]
    assert 0 < found["first_preview_seconds"]
    assert [load["num_clients"] for load in found["loads"]] == [2, 12]
    for load in found["loads"]:
        assert load["num_pictures"] == load["num_clients"]
        assert load["ratio"] == pytest.approx(
            load["images_per_second"] / load["session_images_per_second"]
        )


def test_bad_settings_are_refused() -> None:
    with pytest.raises(SettingsError, match="must be 1 or more"):
        ServeBenchConfig(clients=(0,))


def test_a_server_that_does_not_start_is_told(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with pytest.raises(EngineError, match="the server did not start: it said nothing"):
        measure_serving(str(tiny_checkpoint))
