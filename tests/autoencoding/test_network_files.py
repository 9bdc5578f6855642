"""Two files hold a network; what is missing or does not fit is named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from mmgen.autoencoding.network_files import NetworkFiles
from mmgen.errors import PluginError

FILES = NetworkFiles("line", "line.json", "line.safetensors")


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    line, other = nn.Linear(2, 3), nn.Linear(2, 3)
    FILES.save(tmp_path, line, {"name": "é", "sizes": (2, 3)})
    assert FILES.stated(tmp_path) == {"name": "é", "sizes": [2, 3]}
    assert "é" in (tmp_path / "line.json").read_text(encoding="utf-8")
    FILES.fill(tmp_path, other.train())
    assert torch.equal(other.weight, line.weight) and not other.training


@pytest.mark.parametrize("file", ["line.json", "line.safetensors"])
def test_a_missing_file_is_named(tmp_path: Path, file: str) -> None:
    FILES.save(tmp_path, nn.Linear(2, 3), {})
    (tmp_path / file).unlink()
    with pytest.raises(PluginError, match=f"no line in .*: {file} is missing"):
        FILES.stated(tmp_path)


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    FILES.save(tmp_path, nn.Linear(2, 3), {})
    with pytest.raises(PluginError, match="do not fit its settings"):
        FILES.fill(tmp_path, nn.Linear(3, 3))
    assert FILES.origin(tmp_path) == f"the settings in {tmp_path / 'line.json'}"
