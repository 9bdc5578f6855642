"""The shipped model opens by name, is whole, and draws and reads."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path

import pytest

from mmgen_mini import checkpoint_path


def test_the_package_says_where_its_checkpoint_is() -> None:
    path = checkpoint_path()
    assert (path / "mmgen.json").is_file()
    (entry,) = entry_points(group="mmgen.models", name="mini")
    assert entry.load()() == path


def test_the_package_stays_small() -> None:
    root = Path(checkpoint_path()).parent
    size = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
    assert size < 64 * 2**20


def test_the_model_draws_and_reads(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from mmgen.cli.app import cli

    picture = tmp_path / "apple.png"
    drawn = CliRunner().invoke(cli, ["generate", "a red apple", "--seed", "1", "-o", str(picture)])
    assert drawn.exit_code == 0, drawn.output
    assert picture.read_bytes().startswith(b"\x89PNG")
    said = CliRunner().invoke(cli, ["caption", str(picture)])
    assert said.exit_code == 0, said.output
    assert len(said.stdout.split()) >= 2


@pytest.mark.slow
def test_the_tokenizer_is_the_one_that_holistic_ships() -> None:
    from mmgen.checkpoint import open_checkpoint
    from mmgen.plugins import load_visual_tokenizer_class

    stored = open_checkpoint("mini").load_visual_tokenizer("holistic").fingerprint
    assert stored == load_visual_tokenizer_class("holistic").load().fingerprint
