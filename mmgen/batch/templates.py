"""Prompts with fields of the row in them, and several of them with a name each.

`{title}` stands for the row's field of that name, `{{` and `}}` for braces. Besides its fields a
row has `id`, and one with a picture `name` and `folder`, from where it lies.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from string import Formatter
from typing import Any

from mmgen.batch.rows import FilePicture, Row
from mmgen.errors import SettingsError
from mmgen.generate.requests import check_prompt

__all__ = ["Template", "named_templates", "values_of"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


@dataclass(frozen=True, slots=True)
class Template:
    """A text with places for fields."""

    text: str

    def __post_init__(self) -> None:
        try:
            parts = list(Formatter().parse(self.text))
        except ValueError as error:
            raise SettingsError(
                f"the template {self.text!r} cannot be read: {error}; write {{{{ for a brace"
            ) from error
        for _, field, form, conversion in parts:
            if field is None:
                continue
            if not field or form or conversion or not field.isprintable():
                raise SettingsError(
                    f"the template {self.text!r} has a place that names no field; write {{name}}, "
                    "and {{ for a brace"
                )

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the fields that it has places for."""
        names = (field for _, field, _, _ in Formatter().parse(self.text) if field is not None)
        return tuple(dict.fromkeys(names))

    def fill(self, values: Mapping[str, Any]) -> str:
        """Return the text with values in their places.

        Raises:
            SettingsError: a field is missing, or is no text or number.
        """
        parts: list[str] = []
        for literal, field, _, _ in Formatter().parse(self.text):
            parts.append(literal)
            if field is not None:
                parts.append(self._value(field, values))
        return "".join(parts)

    def _value(self, field: str, values: Mapping[str, Any]) -> str:
        value = values.get(field)
        if value is None:
            known = ", ".join(values) or "none"
            raise SettingsError(
                f"the template {self.text!r} names the field {field!r}, which the row does not "
                f"have; its fields are: {known}"
            )
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return ", ".join(value)
        if not isinstance(value, str | int | float):
            raise SettingsError(
                f"the template {self.text!r} names the field {field!r}, which holds a "
                f"{type(value).__name__}; texts, numbers and lists of texts can be put in"
            )
        return str(value)


def named_templates(texts: Sequence[str]) -> dict[str, Template]:
    """Return templates by name: each text is `NAME=TEMPLATE`, or one alone without a name.

    Raises:
        SettingsError: names are missing where there are several, or two are the same.
    """
    found: dict[str, Template] = {}
    for text in texts:
        name, equals, rest = text.partition("=")
        is_named = bool(equals) and _NAME.fullmatch(name) is not None
        if not is_named and len(texts) > 1:
            raise SettingsError(
                f"several prompts need a name each, such as short=what is this?; got {text!r}"
            )
        name, template = (name, rest) if is_named else ("caption", text)
        if name in found:
            raise SettingsError(f"two prompts are called {name!r}; give each its own name")
        check_prompt(template)
        found[name] = Template(template)
    return found


def values_of(row: Row) -> dict[str, Any]:
    """Return what templates may name of a row."""
    values: dict[str, Any] = {"id": row.id}
    if row.picture is not None:
        values["name"] = PurePosixPath(row.picture.name).stem
        if isinstance(row.picture, FilePicture):
            values["folder"] = PurePosixPath(row.picture.place).parent.name
    return values | dict(row.fields)
