"""From the name of a recipe and a few overrides to a finished run.

A recipe is a function that returns a stage or a pipeline. Its parameters are what many of its
fields depend on, such as where the data lies; they are given like overrides, `data=PATH`.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from mmgen.errors import RecipeError
from mmgen.plugins import load_recipe
from mmgen.train.overrides import apply_overrides, parse_value, split_override
from mmgen.train.processes import current_processes
from mmgen.train.progress import AbstractProgress, SilentProgress
from mmgen.train.stage import AbstractStage, Pipeline

__all__ = ["AbstractStage", "Pipeline", "Recipe", "RunResult", "configure", "find_recipe", "run"]

Recipe: TypeAlias = Callable[..., AbstractStage | Pipeline]
"""A function that returns one complete config."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """What a call of `run` did."""

    done: tuple[str, ...]
    """Stages carried out, by name."""
    skipped: tuple[str, ...]
    """Stages that were finished before."""
    stopped: str | None
    """The stage that was asked to stop; the same call continues there."""


def find_recipe(name: str) -> Recipe:
    """Return a recipe by its entry point, or by `module:function`.

    Raises:
        RecipeError: no such module or function.
        PluginError: no such entry point.
    """
    module_name, colon, attribute = name.partition(":")
    if not colon:
        return typing.cast(Recipe, load_recipe(name))
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise RecipeError(f"cannot import {error.name} for the recipe {name!r}") from error
    functions = {
        key: value
        for key, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module_name
    }
    if attribute not in functions:
        near = difflib.get_close_matches(attribute, functions, n=1)
        guess = f"; did you mean {near[0]}?" if near else f"; it has {', '.join(functions)}"
        raise RecipeError(f"module {module_name} has no function {attribute!r}{guess}")
    return typing.cast(Recipe, functions[attribute])


def configure(recipe: Recipe, overrides: Sequence[str] = ()) -> AbstractStage | Pipeline:
    """Return the config of a recipe with overrides applied.

    Args:
        overrides: `name=value` for a parameter of the recipe, `a.b=value` for a field.

    Raises:
        RecipeError: a parameter is missing, or an override fits nothing.
    """
    parameters = inspect.signature(recipe).parameters
    hints = typing.get_type_hints(recipe)
    name = getattr(recipe, "__name__", str(recipe))
    arguments: dict[str, Any] = {}
    rest = []
    for override in overrides:
        path, text = split_override(override)
        if path in parameters:
            arguments[path] = parse_value(text, hints[path], path)
        else:
            rest.append(override)
    for parameter in parameters.values():
        if parameter.default is parameter.empty and parameter.name not in arguments:
            kind = getattr(hints.get(parameter.name), "__name__", "value")
            raise RecipeError(
                f"recipe {name} needs {parameter.name}; add {parameter.name}={kind.upper()}"
            )
    config = recipe(**arguments)
    if not isinstance(config, AbstractStage | Pipeline):
        raise RecipeError(
            f"recipe {name} returned {type(config).__name__}, expected a stage or a pipeline"
        )
    try:
        return apply_overrides(config, rest)
    except RecipeError as error:
        if not parameters:
            raise
        raise RecipeError(f"{error}. The recipe itself takes {', '.join(parameters)}") from error


def run(
    config: AbstractStage | Pipeline | Sequence[AbstractStage],
    *,
    progress: AbstractProgress | None = None,
) -> RunResult:
    """Carry out what is not finished yet, in order; stop where a stage is asked to.

    Of several processes (`open_processes`), each calls this alike.
    """
    processes = current_processes()
    progress = (processes.is_first and progress) or SilentProgress()
    done: list[str] = []
    skipped: list[str] = []
    for name, stage in _named(config).items():
        # The others must not look while the first one is writing.
        if processes.from_first(processes.is_first and stage.is_finished):
            progress.note(f"{name}: {stage.title}: finished before")
            skipped.append(name)
            continue
        progress.begin(f"{name}: {stage.title}")
        try:
            has_part = stage.is_shared or processes.is_first
            is_complete = processes.from_first(has_part and stage.run(progress))
        finally:
            progress.end()
        if not is_complete:
            return RunResult(done=tuple(done), skipped=tuple(skipped), stopped=name)
        done.append(name)
    return RunResult(done=tuple(done), skipped=tuple(skipped), stopped=None)


def _named(config: AbstractStage | Pipeline | Sequence[AbstractStage]) -> dict[str, AbstractStage]:
    if isinstance(config, Pipeline):
        return config.stages()
    if isinstance(config, AbstractStage):
        return {"run": config}
    return {str(index): stage for index, stage in enumerate(config)}
