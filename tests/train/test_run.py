"""Recipes by name, their parameters, and pipelines that skip what is done."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from mmgen.errors import PluginError, RecipeError
from mmgen.train.progress import AbstractProgress, SilentProgress
from mmgen.train.run import configure, find_recipe, run
from mmgen.train.stage import AbstractStage, Pipeline


@dataclass(frozen=True, slots=True, kw_only=True)
class Touch(AbstractStage):
    """Makes a file, `times` times asked."""

    output: Path
    stops: bool = False

    @property
    def title(self) -> str:
        return f"touch {self.output.name}"

    @property
    def is_finished(self) -> bool:
        return self.output.exists()

    def run(self, progress: AbstractProgress) -> bool:
        if self.stops:
            return False
        self.output.touch()
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Two(Pipeline):
    first: Touch
    second: Touch


@dataclass(frozen=True, slots=True, kw_only=True)
class Nested(Pipeline):
    inner: Two
    last: Touch


@dataclass(frozen=True, slots=True, kw_only=True)
class Odd(Pipeline):
    first: int = 1


def two(*, data: Path, count: int = 3) -> Two:
    """A recipe that needs to know where its data lies."""
    return Two(first=Touch(output=data / "a"), second=Touch(output=data / f"b{count}"))


def plain() -> Touch:
    return Touch(output=Path("x"))


def wrong() -> int:
    return 3


class Notes(SilentProgress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def begin(self, title: str) -> None:
        self.lines.append(title)

    def note(self, text: str) -> None:
        self.lines.append(text)


def test_parameters_are_given_like_overrides(tmp_path: Path) -> None:
    config = configure(two, [f"data={tmp_path}", "count=5", "first.output=c"])
    assert isinstance(config, Two)
    assert config.first.output == Path("c") and config.second.output == tmp_path / "b5"


def test_a_missing_parameter_is_asked_for() -> None:
    with pytest.raises(RecipeError, match=r"recipe two needs data; add data=PATH"):
        configure(two)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data=x", "count=many"], "count must be int, got 'many'"),
        (["data=x", "frist.output=y"], "did you mean first.*The recipe itself takes data, count"),
    ],
)
def test_overrides_that_fit_nothing(overrides: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        configure(two, overrides)


def test_a_recipe_returns_a_config() -> None:
    with pytest.raises(RecipeError, match="returned int"):
        configure(wrong)  # type: ignore[arg-type]


def test_recipes_are_found_by_module_and_function() -> None:
    name = f"{two.__module__}:two"
    assert find_recipe("recipes.debug:debug").__name__ == "debug"
    with pytest.raises(RecipeError, match=r"no function 'debgu'; did you mean debug\?"):
        find_recipe("recipes.debug:debgu")
    with pytest.raises(RecipeError, match=r"cannot import nowhere"):
        find_recipe("nowhere:two")
    with pytest.raises(PluginError, match="no recipe named"):
        find_recipe("no-such-recipe")
    assert name.endswith(":two")


def test_finished_stages_are_skipped(tmp_path: Path) -> None:
    config = Nested(
        inner=Two(first=Touch(output=tmp_path / "a"), second=Touch(output=tmp_path / "b")),
        last=Touch(output=tmp_path / "c"),
    )
    (tmp_path / "b").touch()
    notes = Notes()
    result = run(config, progress=notes)
    assert result.done == ("inner.first", "last") and result.skipped == ("inner.second",)
    assert notes.lines[1] == "inner.second: touch b: finished before"
    assert run(config).done == ()


def test_a_pipeline_stops_with_its_stage(tmp_path: Path) -> None:
    config = Two(
        first=Touch(output=tmp_path / "a", stops=True), second=Touch(output=tmp_path / "b")
    )
    assert run(config).stopped == "first"
    assert not (tmp_path / "b").exists()


def test_single_stages_and_sequences_run_too(tmp_path: Path) -> None:
    assert run(Touch(output=tmp_path / "a")).done == ("run",)
    stages = [Touch(output=tmp_path / "a"), Touch(output=tmp_path / "b")]
    assert run(stages).done == ("1",)


def test_a_pipeline_holds_stages_only() -> None:
    with pytest.raises(TypeError, match=r"Odd\.first is no stage"):
        run(Odd())
