"""What has been measured already, one file each, so that a run that was stopped goes on.

A finding is named by everything that decides it. Other pictures, other weights or other settings
have other names and never meet it.
"""

from __future__ import annotations

import hashlib
import json
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from mmgen.errors import DataError
from mmgen.evaluate.report import output_directory, write_json

__all__ = ["Findings", "restored"]

Finding = TypeVar("Finding")


class Findings:
    """A folder of findings; without a folder, nothing is kept."""

    def __init__(
        self, directory: Path | None, *, on_taken_up: Callable[[str], None] = lambda label: None
    ) -> None:
        """Open a folder, which is made when something is kept.

        Args:
            directory: where findings are kept.
            on_taken_up: is told what was measured before.
        """
        self.directory = directory
        self._on_taken_up = on_taken_up

    def kept(
        self,
        label: str,
        subject: Mapping[str, object],
        kind: type[Finding],
        measure: Callable[[], Finding],
    ) -> Finding:
        """Return a finding of an earlier run, or measure and keep it.

        Args:
            label: what is measured, for people and for the file's name.
            subject: everything that decides it, as JSON values.
            kind: the dataclass that `measure` returns.
            measure: does the work.

        Raises:
            DataError: a file of findings cannot be read.
        """
        if self.directory is None:
            return measure()
        text = json.dumps({"label": label, **subject}, sort_keys=True)
        key = hashlib.sha256(text.encode()).hexdigest()[:16]
        stem = "".join(c if c.isalnum() else "-" for c in label)
        path = self.directory / f"{stem[:60]}-{key}.json"
        if path.exists():
            found = _read(path, kind)
            self._on_taken_up(label)
            return found
        finding = measure()
        output_directory(self.directory)
        write_json(path, {"subject": dict(subject), "finding": asdict(cast(Any, finding))})
        return finding


def restored(kind: Any, value: Any) -> Any:
    """Return a value of a type from what JSON made of it.

    Understands what results consist of: dataclasses, tuples, optional and plain values.

    Raises:
        ValueError: the value is of another type.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        names = {field.name for field in fields(kind)}
        if not isinstance(value, dict) or set(value) != names:
            raise ValueError(f"expected the fields {', '.join(sorted(names))}")
        return cast(type, kind)(**{name: restored(hints[name], value[name]) for name in names})
    if origin is tuple:
        if not isinstance(value, list):
            raise ValueError(f"expected a list, got {value!r}")
        if arguments[-1:] == (Ellipsis,):
            return tuple(restored(arguments[0], item) for item in value)
        return tuple(restored(*pair) for pair in zip(arguments, value, strict=True))
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        (only,) = (item for item in arguments if item is not type(None))
        return restored(only, value)
    if origin is typing.Literal:
        if value not in arguments:
            raise ValueError(f"expected one of {arguments}, got {value!r}")
        return value
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise ValueError(f"expected {kind}, got {value!r}")
    return value


def _read(path: Path, kind: type[Finding]) -> Finding:
    try:
        return cast(Finding, restored(kind, json.loads(path.read_text("utf-8"))["finding"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} is not a finding of this version ({error}); delete it to measure again"
        ) from error
