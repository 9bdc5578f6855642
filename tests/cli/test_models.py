"""`mmgen models`: what is installed, and what a checkpoint says of itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from mmgen.checkpoint import open_checkpoint
from mmgen.cli.app import cli
from mmgen.errors import CheckpointError, PluginError
from mmgen.plugins import MODELS, installed


@pytest.fixture
def add_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_checkpoint: Path) -> Path:
    """Install a distribution with one good model and one that has lost its directory."""
    (tmp_path / "some_models.py").write_text(
        "from pathlib import Path\n"
        f"good = Path({str(tiny_checkpoint)!r})\n"
        f"lost = Path({str(tmp_path / 'gone')!r})\n"
    )
    metadata = tmp_path / "some_models-1.2.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: some-models\nVersion: 1.2\n")
    (metadata / "entry_points.txt").write_text(
        "[mmgen.models]\ntiny = some_models:good\nlost = some_models:lost\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_list_names_every_model_and_a_broken_one_hides_no_other(
    add_models: Path, tiny_checkpoint: Path
) -> None:
    result = CliRunner().invoke(cli, ["models", "list", "--json"])
    assert result.exit_code == 0, result.output
    rows = {row["name"]: row for row in json.loads(result.stdout)}
    assert set(rows) == set(installed(MODELS)) >= {"tiny", "lost"}
    assert rows["tiny"] == {
        "name": "tiny",
        "distribution": "some-models",
        "version": "1.2",
        "path": str(tiny_checkpoint),
    }
    assert "not a directory" in rows["lost"]["error"]
    text = CliRunner().invoke(cli, ["models", "list"]).stdout
    assert f"some-models 1.2  {tiny_checkpoint}" in text


def test_info_describes_a_checkpoint(tiny_checkpoint: Path) -> None:
    result = CliRunner().invoke(cli, ["models", "info", str(tiny_checkpoint), "--json"])
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    checkpoint = open_checkpoint(tiny_checkpoint)
    assert facts["path"] == str(tiny_checkpoint)
    assert facts["fingerprint"] == checkpoint.fingerprint
    assert facts["num_parameters"] == sum(p.numel() for p in checkpoint.load_decoder().parameters())
    assert facts["vocabulary"]["num_text_ids"] == checkpoint.vocabulary.num_text_ids
    (tokenizer,) = facts["tokenizers"]
    assert tokenizer["codes_per_picture"] == 64
    assert tokenizer["sizes"] == [[64, 64], [32, 32]]
    assert facts["licences"] == ["- Weights: no rights reserved (licence: CC0-1.0)."]


def test_info_as_text_has_a_line_per_fact(tiny_checkpoint: Path) -> None:
    lines = CliRunner().invoke(cli, ["models", "info", str(tiny_checkpoint)]).stdout.splitlines()
    facts = {line.split("  ")[0]: line.split("  ")[-1].strip() for line in lines}
    assert facts["tokenizers.name"] == "palette"
    assert facts["tokenizers.sizes"] == "64x64 32x32"
    assert facts["generation.guidance scale"] == "2.0"
    assert facts["licences"].endswith("CC0-1.0).")


def test_info_takes_an_installed_name(add_models: Path, tiny_checkpoint: Path) -> None:
    result = CliRunner().invoke(cli, ["models", "info", "tiny", "--json"])
    assert json.loads(result.stdout)["path"] == str(tiny_checkpoint)


def test_an_unknown_name_lists_what_exists(add_models: Path) -> None:
    result = CliRunner().invoke(cli, ["models", "info", "tinny"])
    assert isinstance(result.exception, PluginError)
    assert "tiny" in str(result.exception)


def test_a_directory_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["models", "info", str(tmp_path)])
    assert isinstance(result.exception, CheckpointError)
