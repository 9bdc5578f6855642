"""`mmgen bench` from arguments to output."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from mmgen.cli.app import cli
from mmgen.errors import EngineError, SettingsError


def test_tokenizer_speeds_as_json() -> None:
    words = ["bench", "tokenizer", "palette", "--batch-size", "2", "--seconds", "0", "--json"]
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert facts["tokenizer"] == "palette"
    assert [(item["operation"], item["batch_size"]) for item in facts["speeds"]] == [
        ("encode", 2),
        ("decode", 2),
    ]


def test_tokenizer_speeds_as_a_table() -> None:
    words = ["bench", "tokenizer", "palette", "--batch-size", "1", "--seconds", "0"]
    result = CliRunner().invoke(cli, words)
    lines = result.stdout.splitlines()
    assert lines[0] == "| palette | batch | pictures per second |"
    assert lines[2].startswith("| encode | 1 | ")
    assert "timing the tokenizer" in result.stderr


def test_generation_is_measured_beside_transformers(tiny_checkpoint: Path) -> None:
    words = ["bench", "generate", "--model", str(tiny_checkpoint)]
    words += ["--count", "1", "--count", "2", "--repeats", "1"]
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert "times faster" in lines[0]
    assert [line.split("|")[1].strip() for line in lines[2:4]] == ["1", "2"]
    assert "GB/s" in lines[-1]


def test_starts_are_measured_from_outside(tiny_checkpoint: Path) -> None:
    words = ["bench", "start", "--model", str(tiny_checkpoint), "--runs", "1", "--json"]
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 0, result.output
    starts = json.loads(result.stdout)["starts"]
    assert [start["name"] for start in starts] == ["help", "first picture", "first caption"]
    assert starts[0]["peak_mib"] < starts[1]["peak_mib"] < 2048


def test_a_start_that_fails_says_why(tmp_path: Path) -> None:
    words = ["bench", "start", "--model", str(tmp_path / "none"), "--runs", "1"]
    result = CliRunner().invoke(cli, words)
    assert isinstance(result.exception, EngineError)
    assert "no such directory" in str(result.exception)


@pytest.mark.slow
def test_training_is_measured_beside_transformers() -> None:
    words = ["bench", "train", "--steps", "1", "--rows", "2", "--context-length", "128"]
    words += ["--hidden-size", "64", "--layers", "1", "--compile", "off", "--json"]
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["speedup"] > 0


def test_training_needs_whole_heads() -> None:
    result = CliRunner().invoke(cli, ["bench", "train", "--hidden-size", "100"])
    assert isinstance(result.exception, SettingsError)
    assert "multiple of 64" in str(result.exception)
