"""Settings that rows carry: values of tables and JSON read as what they must be."""

from __future__ import annotations

from typing import Any

from mmgen.batch.rows import Row
from mmgen.errors import SettingsError

__all__ = ["integer", "number", "text"]


def text(row: Row, name: str) -> str | None:
    """Return a field that must be text; None where the row has none."""
    value = row.fields.get(name)
    if value is None or isinstance(value, str):
        return value
    raise SettingsError(f"{name} must be text, got {_shown(value)}")


def number(row: Row, name: str) -> float | None:
    """Return a field that must be a number, also one written as text."""
    value = row.fields.get(name)
    if value is None:
        return None
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        try:
            return float(value)
        except (ValueError, OverflowError):
            pass
    raise SettingsError(f"{name} must be a number, got {_shown(value)}")


def integer(row: Row, name: str) -> int | None:
    """Return a field that must be a whole number, also one written as text."""
    value = row.fields.get(name)
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            pass
    raise SettingsError(f"{name} must be a whole number, got {_shown(value)}")


def _shown(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:59]}…"
