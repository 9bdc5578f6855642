"""`mmgen bench chat` with counts that are as small as they can be."""

from __future__ import annotations

import json
import sys

import pytest
from click.testing import CliRunner

from mmgen.cli.app import cli
from mmgen.errors import PluginError
from mmgen.plugins import MODELS, installed
from mmgen_chat.errors import ChatError
from mmgen_chat.graphics import GRAPHICS

FEW = ["--starts", "1", "--keys", "2", "--previews", "2", "--pictures", "2"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
@pytest.mark.skipif("mini" not in installed(MODELS), reason="the model mini is not installed")
def test_the_chat_is_measured_in_a_terminal_of_its_own() -> None:
    result = CliRunner().invoke(cli, ["bench", "chat", *FEW, "--json"])
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert 0 < facts["ready_seconds"] < facts["loaded_seconds"]
    assert 0 < facts["echo_seconds"] <= facts["echo_p95_seconds"] and facts["num_keys"] == 2
    assert [cost["graphics"] for cost in facts["repaints"]] == list(GRAPHICS)
    assert all(cost["cpu_seconds"] > 0 and cost["num_bytes"] > 0 for cost in facts["repaints"])
    assert facts["memory"]["num_turns"] == 4 and facts["memory"]["num_pictures"] == 2
    assert facts["memory"]["start_mib"] > 10


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
def test_a_model_that_is_not_there_is_said() -> None:
    result = CliRunner().invoke(cli, ["bench", "chat", "--model", "nothing-here", *FEW])
    assert isinstance(result.exception, ChatError)
    assert "nothing-here" in str(result.exception)


def test_without_the_chat_its_measurement_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "mmgen_chat"]:
        monkeypatch.delitem(sys.modules, name)

    class Missing:
        def find_spec(self, name: str, path: object = None, target: object = None) -> None:
            if name == "mmgen_chat":
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(sys, "meta_path", [Missing(), *sys.meta_path])
    assert "Measure the chat." in CliRunner().invoke(cli, ["bench", "--help"]).stdout
    result = CliRunner().invoke(cli, ["bench", "chat", "--json"])
    assert isinstance(result.exception, PluginError)
    assert "pip install mmgen-chat" in str(result.exception)
