"""The documentation against the project: what it links, lists, runs and calls exists."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from mmgen.cli.app import COMMANDS

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
README = (ROOT / "README.md").read_text(encoding="utf-8")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Fence:
    """A fenced block of a page."""

    language: str
    text: str


def fences(page: str) -> list[Fence]:
    return [Fence(language, text) for language, text in FENCE.findall(page)]


def fresh(name: str) -> list[str]:
    """Return the lines of the README's block that is marked for a fresh environment."""
    found = re.search(rf"<!-- fresh: {name} -->\s*```[a-z]*\n(.*?)```", README, re.DOTALL)
    assert found, f"the README marks no block as fresh: {name}"
    return [line for line in found[1].splitlines() if line.strip()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    prose = FENCE.sub("", page.read_text(encoding="utf-8"))
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", prose)
    local = [target for target in targets if not re.match(r"[a-z]+:", target)]
    assert [target for target in local if not (page.parent / target).exists()] == []


def test_every_page_is_reached_from_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    names = {page.name for page in (ROOT / "docs").glob("*.md")} - {"index.md"}
    assert {name for name in names if f"({name})" not in index} == set()


def test_everything_on_the_map_of_the_tree_exists() -> None:
    (tree,) = [fence.text for fence in fences(README) if fence.text.startswith("mmgen/")]
    folders: list[str] = []
    for line in tree.splitlines():
        indent, name = re.match(r"( *)(\S+)", line).groups()  # type: ignore[union-attr]
        depth = len(indent) // 2
        folders[depth:] = [name]
        assert (ROOT / "".join(folders)).exists(), line


@pytest.mark.parametrize("name", ["run", "test"])
def test_fresh_blocks_have_at_most_two_lines(name: str) -> None:
    assert 1 <= len(fresh(name)) <= 2


@pytest.mark.parametrize(
    ("block", "file", "itself"),
    [("run", "requirements.txt", "."), ("test", "requirements-dev.txt", "-e .[test,train]")],
)
def test_fresh_blocks_install_every_distribution_under_the_constraints(
    block: str, file: str, itself: str
) -> None:
    assert fresh(block)[0] == f"pip install -c constraints.txt -r {file}"
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    places = sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))
    places += [ROOT / "recipes", ROOT / "chat"]
    option = itself.removesuffix(itself.split()[-1])
    assert lines[1:] == [itself, *(f"{option}./{place.relative_to(ROOT)}" for place in places)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_that_is_shown_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    spans = [*re.findall(r"`([^`\n]+)`", FENCE.sub("", text))]
    spans += [line for fence in fences(text) for line in fence.text.splitlines()]
    parts = [part.strip() for span in spans for part in re.split(r"&&|\|", span)]
    calls = [part.split() for part in parts if part.startswith("mmgen ")]
    shown = {words[1] for words in calls if re.fullmatch(r"[a-z]+", words[1])}
    assert shown - set(COMMANDS) == set()


def test_the_recipe_of_the_tutorial_runs() -> None:
    page = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    (code,) = [fence.text for fence in fences(page) if fence.language == "python"]
    names: dict[str, object] = {}
    exec(compile(code, "docs/recipes.md", "exec"), names)
    config = eval("longer()", names)
    assert config.decoder.num_steps == 600
