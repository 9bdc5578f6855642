"""Which tokenizer `mmgen tokenizer check` is about: an installed one, a package folder, a file."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TypeGuard

from mmgen.errors import MmgenError, PluginError
from mmgen.plugins import VISUAL_TOKENIZERS, find, load_visual_tokenizer_class
from mmgen.visual_tokenizer import AbstractVisualTokenizer

__all__ = ["CheckedPlugin", "find_plugin", "load_plugin"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedPlugin:
    """A tokenizer class and where it came from."""

    name: str
    """What it is called."""
    origin: str
    """Its name with the distribution and version, or the path."""
    kind: type[AbstractVisualTokenizer]
    """The class."""


def find_plugin(name_or_path: str) -> CheckedPlugin:
    """Return the tokenizer that a user means; what holds a separator or exists is a path.

    Raises:
        PluginError: there is none, or it cannot be imported.
    """
    path = Path(name_or_path)
    if path.suffix == ".py":
        return _in_file(path)
    if path.name != name_or_path or (path / "pyproject.toml").is_file():
        return _in_folder(path)
    kind = load_visual_tokenizer_class(name_or_path)
    info = find(VISUAL_TOKENIZERS, name_or_path)
    origin = f"{info.name} of {info.distribution} {info.version} ({info.value})"
    return CheckedPlugin(name=info.name, origin=origin, kind=kind)


def load_plugin(plugin: CheckedPlugin, weights: Path | None) -> AbstractVisualTokenizer:
    """Load the tokenizer, without a guard: its faults are what is looked for.

    Raises:
        PluginError: its own, or one that names it where it raises anything else.
    """
    try:
        return plugin.kind.load(weights)
    except MmgenError:
        raise
    except (Exception, SystemExit) as error:  # whatever a stranger's code raises is the finding
        raise PluginError(
            f"{plugin.origin} cannot be loaded: {type(error).__name__}: {error}; "
            "load(path) must work for what save(path) wrote, and without a path"
        ) from error


def _in_folder(folder: Path) -> CheckedPlugin:
    """Return the tokenizer of a package's source folder, as its pyproject.toml names it."""
    file = folder / "pyproject.toml"
    try:
        project = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
        entries = dict(project["entry-points"][VISUAL_TOKENIZERS])
    except OSError as error:
        raise PluginError(
            f"{folder} is no folder of a tokenizer's package ({file.name}: {error.strerror}); give "
            "an installed tokenizer's name, a package folder or a .py file"
        ) from error
    except (KeyError, TypeError, ValueError) as error:
        raise PluginError(
            f'{file} names no tokenizer ({error}); it needs [project.entry-points."'
            f'{VISUAL_TOKENIZERS}"] with NAME = "module:Class"'
        ) from error
    if len(entries) != 1:
        raise PluginError(
            f"{file} names {len(entries)} tokenizers ({', '.join(entries)}); install it and check "
            "them by name"
        )
    ((name, value),) = entries.items()
    source = folder / "src" if (folder / "src").is_dir() else folder
    module_name, _, attribute = str(value).partition(":")
    sys.path.insert(0, str(source.resolve()))
    module = _imported(module_name, f"{value} of {folder}")
    kind = getattr(module, attribute, None)
    if not _is_tokenizer(kind):
        raise PluginError(
            f"{value} of {folder} is {kind!r}, expected a class that implements "
            "mmgen.visual_tokenizer.AbstractVisualTokenizer in full"
        )
    found = Path(module.__file__ or "").resolve()
    if not found.is_relative_to(source.resolve()):
        raise PluginError(
            f"{module_name} is imported from {found}, not from {folder}; check in an environment "
            "where no other one is installed"
        )
    version = project.get("version", "without a version")
    origin = f"{name} of {project.get('name', folder)} {version} ({value}) in {folder}"
    return CheckedPlugin(name=name, origin=origin, kind=kind)


def _in_file(path: Path) -> CheckedPlugin:
    """Return the only tokenizer that a file defines."""
    if not path.is_file():
        raise PluginError(f"there is no file {path}; give a name, a package folder or a .py file")
    sys.path.insert(0, str(path.resolve().parent))
    module = _imported(path.stem, str(path))
    kinds = [
        value
        for value in vars(module).values()
        if _is_tokenizer(value) and value.__module__ == module.__name__
    ]
    if len(kinds) != 1:
        names = ", ".join(kind.__name__ for kind in kinds) or "none"
        raise PluginError(f"{path} defines {len(kinds)} tokenizers ({names}), expected one")
    return CheckedPlugin(name=path.stem, origin=f"{kinds[0].__name__} in {path}", kind=kinds[0])


def _imported(module: str, origin: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except (Exception, SystemExit) as error:  # a stranger's module may raise anything
        raise PluginError(
            f"{origin} cannot be imported: {type(error).__name__}: {error}; repair it"
        ) from error


def _is_tokenizer(value: object) -> TypeGuard[type[AbstractVisualTokenizer]]:
    return (
        isinstance(value, type)
        and issubclass(value, AbstractVisualTokenizer)
        and not inspect.isabstract(value)
    )
