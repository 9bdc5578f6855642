"""Changing any frozen dataclass config by `a.b=c`, checked against its annotations.

All overrides of one call are applied together, so that settings which only fit one another can be
changed at once. The same file compares two configs and prints one, since both walk the same fields.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar, Union, get_args, get_origin

from mmgen.errors import RecipeError

__all__ = ["apply_overrides", "differences", "parse_value", "split_override", "to_plain", "walk"]

Config = TypeVar("Config")

Plain: TypeAlias = bool | int | float | str | list[Any] | dict[str, Any] | None
"""What JSON can hold."""


def apply_overrides(config: Config, overrides: Sequence[str]) -> Config:
    """Return `config` with the given fields changed; a later override of a field wins.

    Args:
        overrides: each `path=value`; a path names fields, and positions in tuples, joined by dots.

    Raises:
        RecipeError: no such field, a value of another type, or values the config refuses.
    """
    tree: dict[str, Any] = {}
    for override in overrides:
        path, text = split_override(override)
        node = tree
        *parents, last = path.split(".")
        for name in parents:
            child = node.setdefault(name, {})
            if not isinstance(child, dict):
                raise RecipeError(f"{override!r} sets a part of {name!r}, which is set as a whole")
            node = child
        node[last] = text
    changed = _changed(config, type(config), tree, "")
    assert isinstance(changed, type(config))
    return changed


def split_override(override: str) -> tuple[str, str]:
    """Return the path and the value of `path=value`."""
    path, equals, text = override.partition("=")
    if not equals or not all(path.strip().split(".")):
        raise RecipeError(f"{override!r} is no override; write field=value, as in optim.lr=3e-4")
    return path.strip(), text.strip()


def _changed(value: Any, annotation: Any, tree: Mapping[str, Any], where: str) -> Any:
    """Return `value` with the changes of `tree`, which lies at the path `where`."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _changed_config(value, tree, where)
    if isinstance(value, tuple):
        return _changed_tuple(value, annotation, tree, where)
    name = next(iter(tree))
    raise RecipeError(f"{where[:-1]} is {value!r}, which has no field {name!r} to set")


def _changed_config(config: Any, tree: Mapping[str, Any], where: str) -> Any:
    hints = typing.get_type_hints(type(config))
    names = [field.name for field in dataclasses.fields(config) if field.init]
    changes: dict[str, Any] = {}
    for name, change in tree.items():
        if name not in names:
            raise RecipeError(_unknown(where + name, name, names))
        if isinstance(change, str):
            changes[name] = parse_value(change, hints[name], where + name)
        else:
            changes[name] = _changed(getattr(config, name), hints[name], change, f"{where}{name}.")
    try:
        return dataclasses.replace(config, **changes)
    except ValueError as error:
        raise RecipeError(f"{where or 'the config '}refuses {_listed(tree)}: {error}") from error


def _changed_tuple(
    values: tuple[Any, ...], annotation: Any, tree: Mapping[str, Any], where: str
) -> tuple[Any, ...]:
    out = list(values)
    for name, change in tree.items():
        if not name.isdigit() or int(name) >= len(values):
            raise RecipeError(
                f"{where}{name} does not exist: {where[:-1]} has {len(values)} items, "
                "numbered from 0"
            )
        index = int(name)
        item = _item_type(annotation, index, where[:-1])
        if isinstance(change, str):
            out[index] = parse_value(change, item, where + name)
        else:
            out[index] = _changed(values[index], item, change, f"{where}{name}.")
    return tuple(out)


def _item_type(annotation: Any, index: int, where: str) -> Any:
    for option in _options(annotation):
        if get_origin(option) is tuple:
            items = get_args(option)
            return items[0] if items[-1] is Ellipsis else items[index]
    raise RecipeError(f"{where} is not annotated as a tuple, so its items cannot be set")


def _unknown(path: str, name: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    guess = f"did you mean {path.removesuffix(name)}{near[0]}? " if near else ""
    return f"no field {path}; {guess}There are: {', '.join(names)}"


def _listed(tree: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name}={change}" if isinstance(change, str) else f"{name}.({_listed(change)})"
        for name, change in tree.items()
    )


def parse_value(text: str, annotation: Any, where: str) -> Any:
    """Return the value that `text` spells for an annotation.

    Args:
        where: path of the field, for the message.

    Raises:
        RecipeError: the text spells no such value.
    """
    for option in _options(annotation):
        try:
            return _parse(text, option, where)
        except ValueError:
            continue
    raise RecipeError(f"{where} must be {_type_name(annotation)}, got {text!r}")


def _options(annotation: Any) -> tuple[Any, ...]:
    """Return the members of a union in the order of trial, None and numbers before text."""
    if get_origin(annotation) in (Union, types.UnionType):
        members = get_args(annotation)
        return tuple(sorted(members, key=lambda member: _TRIAL.get(member, 2)))
    return (annotation,)


_TRIAL: Mapping[Any, int] = {type(None): 0, bool: 0, int: 0, float: 1, Path: 3, str: 4}


def _parse(text: str, annotation: Any, where: str) -> Any:
    """Parse for one annotation that is no union; `ValueError` means another may be tried."""
    origin = get_origin(annotation)
    if annotation is type(None):
        if text.lower() in ("none", "null"):
            return None
        raise ValueError(text)
    if origin is Literal:
        for option in get_args(annotation):
            if str(option) == text:
                return option
        raise ValueError(text)
    if annotation is bool:
        return {"true": True, "false": False}[_known(text.lower(), ("true", "false"))]
    if annotation is int:
        return int(text)
    if annotation is float:
        number = float(text)
        if math.isnan(number):
            raise ValueError(text)
        return number
    if annotation is str:
        return text
    if annotation is Path:
        if not text:
            raise ValueError(text)
        return Path(text).expanduser()
    if origin is tuple:
        return _parse_tuple(text, get_args(annotation), where)
    if dataclasses.is_dataclass(annotation):
        return _parse_config(text, annotation, where)
    if origin is not None and issubclass(origin, Mapping):
        loaded = _json(text)
        if not isinstance(loaded, dict):
            raise ValueError(text)
        kind = get_args(annotation)[1]
        return {key: _from_json(value, kind, f"{where}.{key}") for key, value in loaded.items()}
    raise RecipeError(
        f"{where} is of type {_type_name(annotation)} and cannot be set by an override"
    )


def _known(text: str, names: Sequence[str]) -> str:
    if text not in names:
        raise ValueError(text)
    return text


def _parse_tuple(text: str, items: tuple[Any, ...], where: str) -> tuple[Any, ...]:
    if text.startswith("["):
        loaded = _json(text)
    else:
        loaded = [part.strip() for part in text.split(",")] if text else []
    if items[-1] is Ellipsis:
        items = (items[0],) * len(loaded)
    if len(loaded) != len(items):
        raise RecipeError(f"{where} needs {len(items)} values, got {len(loaded)}: {text!r}")
    return tuple(
        _from_json(value, item, f"{where}.{index}")
        for index, (value, item) in enumerate(zip(loaded, items, strict=True))
    )


def _parse_config(text: str, kind: Any, where: str) -> Any:
    loaded = _json(text)
    if not isinstance(loaded, dict):
        raise ValueError(text)
    hints = typing.get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind)]
    for name in loaded:
        if name not in names:
            raise RecipeError(_unknown(f"{where}.{name}", name, names))
    values = {
        name: _from_json(value, hints[name], f"{where}.{name}") for name, value in loaded.items()
    }
    try:
        return kind(**values)
    except (TypeError, ValueError) as error:
        raise RecipeError(f"{where}={text} does not fit {kind.__name__}: {error}") from error


def _from_json(value: Any, annotation: Any, where: str) -> Any:
    if annotation in (object, Any):
        return value
    return parse_value(value if isinstance(value, str) else json.dumps(value), annotation, where)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(text) from error


def _type_name(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return "one of " + ", ".join(str(option) for option in get_args(annotation))
    if get_origin(annotation) in (Union, types.UnionType):
        return " or ".join(_type_name(member) for member in get_args(annotation))
    if annotation is type(None):
        return "none"
    if get_origin(annotation) is None and isinstance(annotation, type):
        return annotation.__name__
    return str(annotation).replace("typing.", "")


def to_plain(value: object) -> Plain:
    """Return a config as JSON can hold it: paths as text, tuples as lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: to_plain(getattr(value, field.name))
            for field in dataclasses.fields(value)
            if field.init
        }
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{value!r} has no plain form")


def walk(plain: Plain, path: str = "") -> Iterator[tuple[str, Plain]]:
    """Yield every leaf of a plain config with its path, in order."""
    if isinstance(plain, dict) and plain:
        for key, value in plain.items():
            yield from walk(value, f"{path}.{key}" if path else key)
    elif isinstance(plain, list) and any(isinstance(item, dict | list) for item in plain):
        for index, value in enumerate(plain):
            yield from walk(value, f"{path}.{index}")
    else:
        yield path, plain


def differences(old: Plain, new: Plain, path: str = "") -> dict[str, tuple[Plain, Plain]]:
    """Return the paths at which two plain configs differ, with both values.

    A field that `old` lacks is no difference: it was stored before the field existed.
    """
    if isinstance(old, dict) and isinstance(new, dict):
        found: dict[str, tuple[Plain, Plain]] = {}
        for key, value in old.items():
            found |= differences(value, new.get(key), f"{path}.{key}" if path else key)
        return found
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        found = {}
        for index, (before, after) in enumerate(zip(old, new, strict=True)):
            found |= differences(before, after, f"{path}.{index}")
        return found
    return {} if old == new else {path: (old, new)}
