"""Every recipe can be asked for as the documentation does: by name, with the place of the data."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmgen.plugins import RECIPES, installed
from mmgen.train.overrides import to_plain
from mmgen.train.run import configure, find_recipe


@pytest.mark.parametrize("name", sorted(installed(RECIPES)))
def test_a_recipe_needs_no_more_than_the_data(name: str, tmp_path: Path) -> None:
    words = [] if name == "debug" else [f"data={tmp_path}"]
    # Another decoder is for the codes of a model, which has to be named.
    words += ["model=mini"] if name == "decoder" else []
    config = configure(find_recipe(name), words)
    assert f"runs/{name}" in str(to_plain(config))
