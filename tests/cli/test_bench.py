"""`mmgen bench` from arguments to output."""

from __future__ import annotations

import json

from click.testing import CliRunner

from mmgen.cli.app import cli


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
