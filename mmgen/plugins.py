"""Finding what other distributions add to mmgen, by entry point.

Asking which plugins exist reads package metadata and imports none of them; loading a name imports
exactly that one plugin. Every failure names the distribution at fault and what is installed.
"""

from __future__ import annotations

import difflib
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from mmgen.errors import MmgenError, PluginError
from mmgen.guarded_tokenizer import GuardedTokenizer
from mmgen.visual_tokenizer import AbstractVisualTokenizer, Parts

__all__ = [
    "MODELS",
    "RECIPES",
    "VISUAL_TOKENIZERS",
    "PluginInfo",
    "find",
    "guarded",
    "installed",
    "listed",
    "load_model_path",
    "load_recipe",
    "load_visual_tokenizer",
    "load_visual_tokenizer_class",
    "located_visual_tokenizer",
    "untrained_visual_tokenizer",
]

VISUAL_TOKENIZERS = "mmgen.visual_tokenizers"
"""Group whose values are classes that implement `AbstractVisualTokenizer`."""

MODELS = "mmgen.models"
"""Group whose values are, or are functions that return, the `Path` of a checkpoint directory."""

RECIPES = "mmgen.recipes"
"""Group whose values are functions that return a complete configuration."""

SETTINGS_FILE = "tokenizer_config.json"
"""File in which a wrapper's folder says which plugin reads it."""

_KINDS = {VISUAL_TOKENIZERS: "visual tokenizer", MODELS: "model", RECIPES: "recipe"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginInfo:
    """What package metadata says of one plugin."""

    name: str
    """The entry point's name, which users write."""
    distribution: str
    """The installed distribution that provides it."""
    version: str
    """The version of that distribution."""
    value: str
    """Where the object is: `module:attribute`."""


def installed(group: str) -> dict[str, PluginInfo]:
    """Return the plugins of a group by name, sorted, without importing any of them.

    Raises:
        PluginError: two distributions provide one name.
    """
    names = sorted({entry.name for entry in entry_points(group=group)})
    return {name: find(group, name) for name in names}


def listed(group: str) -> list[PluginInfo]:
    """Return the plugins of a group sorted by name, those that share a name included.

    Nothing is imported, and no plugin, however broken, keeps the others from being listed.
    """
    plugins = [_info(entry) for entry in entry_points(group=group)]
    return sorted(plugins, key=lambda info: (info.name, info.distribution))


def find(group: str, name: str) -> PluginInfo:
    """Return the plugin of that name, without importing it.

    Raises:
        PluginError: no distribution provides the name, or several do.
    """
    return _info(_entry_point(group, name))


def load_visual_tokenizer_class(name: str) -> type[AbstractVisualTokenizer]:
    """Import one plugin and return its visual tokenizer class."""
    entry = _entry_point(VISUAL_TOKENIZERS, name)
    value = _load(entry)
    if not (isinstance(value, type) and issubclass(value, AbstractVisualTokenizer)):
        raise PluginError(
            f"{_origin(entry)} gives {value!r}, expected a class that implements "
            "mmgen.visual_tokenizer.AbstractVisualTokenizer; correct the entry point"
        )
    if inspect.isabstract(value):
        missing = ", ".join(sorted(value.__abstractmethods__))
        raise PluginError(f"{_origin(entry)} gives {value.__name__}, which lacks {missing}")
    return value


def located_visual_tokenizer(
    name_or_folder: str, path: Path | None = None
) -> tuple[str, Path | None]:
    """Return the plugin's name and the directory of weights of a tokenizer as users name it.

    Args:
        name_or_folder: a plugin, or a folder that says which plugin reads it, as wrappers write it.
        path: directory of settings and weights, where it was given apart.

    Raises:
        PluginError: a folder that says no plugin, or two directories.
    """
    folder = Path(name_or_folder)
    file = folder / SETTINGS_FILE
    is_name = folder.name == name_or_folder and name_or_folder not in ("", ".", "..")
    if is_name and (not file.is_file() or name_or_folder in _names(VISUAL_TOKENIZERS)):
        return name_or_folder, path
    try:
        plugin = json.loads(file.read_text(encoding="utf-8")).get("plugin")
    except (OSError, ValueError, AttributeError) as error:
        raise PluginError(
            f"{folder} is no folder of a tokenizer: {file.name} cannot be read ({error}); give a "
            "name, or a folder that `mmgen tokenizer` or `mmgen train` wrote"
        ) from error
    if not isinstance(plugin, str):
        raise PluginError(
            f"{file} does not say which plugin it is for; give its name, and the folder with "
            "--weights"
        )
    if path is not None:
        raise PluginError(
            f"{folder} is a directory of weights itself; leave out --weights, or give the name "
            f"{plugin}"
        )
    return plugin, folder


def load_visual_tokenizer(
    name: str,
    path: Path | None = None,
    *,
    parts: Parts = "both",
    device: str = "cpu",
    dtype: str = "float32",
) -> AbstractVisualTokenizer:
    """Load one visual tokenizer for use, guarded.

    Args:
        name: the plugin.
        path: directory of settings and weights; without it, what the plugin ships.
        parts: halves to load.
        device: a torch device, for tokenizers that run on one.
        dtype: a torch floating-point type by name, likewise.

    Raises:
        PluginError: it is unknown, or raises anything while it is imported or loaded.
    """
    cls = load_visual_tokenizer_class(name)
    try:
        tokenizer = cls.load(path, parts=parts, device=device, dtype=dtype)
    except MmgenError:
        raise
    except (Exception, SystemExit) as error:  # a stranger's code may raise anything
        entry = _entry_point(VISUAL_TOKENIZERS, name)
        raise PluginError(
            f"{_origin(entry)} cannot be loaded{f' from {path}' if path else ''}: "
            f"{type(error).__name__}: {error}; check the weights, or repair or reinstall "
            f"{_info(entry).distribution}"
        ) from error
    return guarded(tokenizer, name)


def untrained_visual_tokenizer(
    name: str, settings: Mapping[str, object], *, seed: int
) -> AbstractVisualTokenizer:
    """Return a tokenizer with fresh weights, without a guard, since it is there to be changed.

    Raises:
        PluginError: it is unknown, has nothing to train, or raises anything while it is made.
    """
    cls = load_visual_tokenizer_class(name)
    if not cls.is_trainable:
        raise PluginError(f"the visual tokenizer {name} has nothing to train")
    try:
        return cls.untrained(settings, seed=seed)
    except MmgenError:
        raise
    except (Exception, SystemExit) as error:  # a stranger's code may raise anything
        entry = _entry_point(VISUAL_TOKENIZERS, name)
        raise PluginError(
            f"{_origin(entry)} makes no untrained tokenizer of the settings {dict(settings)}: "
            f"{type(error).__name__}: {error}; check them, or repair {_info(entry).distribution}"
        ) from error


def guarded(tokenizer: AbstractVisualTokenizer, name: str) -> AbstractVisualTokenizer:
    """Return a loaded tokenizer whose faults become errors that name the plugin of that name."""
    return GuardedTokenizer(tokenizer, _origin(_entry_point(VISUAL_TOKENIZERS, name)))


def load_model_path(name: str) -> Path:
    """Import one plugin and return the directory of the checkpoint that it carries."""
    entry = _entry_point(MODELS, name)
    value = _load(entry)
    path = value() if callable(value) else value
    if not isinstance(path, Path):
        raise PluginError(
            f"{_origin(entry)} gives {path!r}, expected the pathlib.Path of a checkpoint directory"
        )
    if not path.is_dir():
        raise PluginError(
            f"{_origin(entry)} gives {path}, which is not a directory; "
            f"reinstall {_info(entry).distribution}"
        )
    return path


def load_recipe(name: str) -> Callable[[], object]:
    """Import one plugin and return its recipe function."""
    entry = _entry_point(RECIPES, name)
    value = _load(entry)
    if not callable(value):
        raise PluginError(f"{_origin(entry)} gives {value!r}, expected a function")
    recipe: Callable[[], object] = value
    return recipe


def _names(group: str) -> set[str]:
    return {entry.name for entry in entry_points(group=group)}


def _entry_point(group: str, name: str) -> EntryPoint:
    """Return the only entry point of that name."""
    entries = entry_points(group=group)
    found = [entry for entry in entries if entry.name == name]
    if not found:
        raise PluginError(_unknown(group, name, sorted({entry.name for entry in entries})))
    if len(found) > 1:
        origins = " and ".join(sorted(_origin(entry) for entry in found))
        raise PluginError(f"{len(found)} plugins have one name: {origins}; uninstall all but one")
    return found[0]


def _unknown(group: str, name: str, names: list[str]) -> str:
    kind = _KINDS.get(group, f"plugin of {group}")
    if not names:
        return f"no {kind} named {name!r}: none is installed; install a distribution that has it"
    near = difflib.get_close_matches(name, names, n=1)
    guess = f"; did you mean {near[0]!r}?" if near else ""
    return f"no {kind} named {name!r}; installed: {', '.join(names)}{guess}"


def _load(entry: EntryPoint) -> object:
    try:
        value: object = entry.load()
    except (Exception, SystemExit) as error:  # a stranger's module may raise anything
        raise PluginError(
            f"{_origin(entry)} cannot be imported: {type(error).__name__}: {error}; "
            f"repair or uninstall {_info(entry).distribution}"
        ) from error
    return value


def _info(entry: EntryPoint) -> PluginInfo:
    assert entry.dist is not None, f"{entry} was not read from an installed distribution"
    return PluginInfo(
        name=entry.name,
        distribution=entry.dist.metadata["Name"],
        version=entry.dist.version,
        value=entry.value,
    )


def _origin(entry: EntryPoint) -> str:
    info = _info(entry)
    return f"plugin {info.name!r} ({info.value}) of {info.distribution} {info.version}"
