"""`mmgen train` and `mmgen recipes` as a user meets them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from mmgen.cli.train import recipes, train
from mmgen.errors import PluginError, RecipeError


def test_show_prints_what_overrides_take() -> None:
    arguments = ["show", "recipes.debug:debug", "decoder.optim.lr=0.25", "output=there"]
    result = CliRunner().invoke(recipes, arguments, catch_exceptions=False)
    lines = dict(line.split("=", 1) for line in result.stdout.splitlines())
    assert result.exit_code == 0
    assert lines["decoder.optim.lr"] == "0.25"
    assert lines["decoder.optim.betas"] == "0.9,0.95"
    assert lines["decoder.max_minutes"] == "none"
    assert lines["prepare.output"] == str(Path("there") / "shards")


def test_list_names_installed_recipes() -> None:
    result = CliRunner().invoke(recipes, ["list", "--json"], catch_exceptions=False)
    assert result.exit_code == 0
    assert all(
        {"name", "distribution"} <= set(json.loads(line)) for line in result.stdout.splitlines()
    )


def test_columns_of_recipes_stand_in_line() -> None:
    result = CliRunner().invoke(recipes, ["list"], catch_exceptions=False)
    lines = result.stdout.splitlines()
    assert len(lines) > 2 and max(map(len, lines)) <= 80
    found = [re.fullmatch(r"(\S+) +(\S+ [0-9.]+) +(\S+:\S+)", line) for line in lines]
    starts = [[match.start(group) for group in (1, 2, 3)] for match in found if match]
    assert len(starts) == len(lines) and all(start == starts[0] for start in starts)


def test_training_tells_what_was_finished(tmp_path: Path) -> None:
    arguments = ["recipes.debug:debug", f"output={tmp_path}"]
    small = ["text_tokenizer.num_ids=300", "decoder.decoder.vocab_size=640"]
    result = CliRunner().invoke(train, [*arguments, *small, "decoder.num_steps=0"])
    assert isinstance(result.exception, RecipeError)
    assert "num_steps must be 1 or more" in str(result.exception)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("recipe", "error"), [("no-such", PluginError), ("nowhere:x", RecipeError)]
)
def test_unknown_recipes(recipe: str, error: type[Exception]) -> None:
    result = CliRunner().invoke(train, [recipe])
    assert isinstance(result.exception, error)


STOPPING = """
from dataclasses import dataclass
from pathlib import Path

from mmgen.train.stage import AbstractStage


@dataclass(frozen=True, slots=True, kw_only=True)
class Once(AbstractStage):
    output: Path
    stops: bool

    @property
    def title(self):
        return "one file"

    @property
    def is_finished(self):
        return self.output.exists()

    def run(self, progress):
        if not self.stops:
            self.output.touch()
        return not self.stops


def once(*, output: Path, stops: bool = False):
    return Once(output=output, stops=stops)
"""


def test_a_stopped_run_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_recipes.py").write_text(STOPPING)
    monkeypatch.syspath_prepend(str(tmp_path))
    arguments = ["my_recipes:once", f"output={tmp_path / 'made'}"]
    stopped = CliRunner().invoke(train, [*arguments, "stops=true"])
    assert stopped.exit_code == 130 and stopped.stdout == ""
    assert f"continue with: mmgen train my_recipes:once output={tmp_path}" in stopped.stderr
    assert CliRunner().invoke(train, arguments).stderr.endswith("done: run\n")
    assert "everything was finished before" in CliRunner().invoke(train, arguments).stderr
