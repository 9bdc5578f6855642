"""Results as files: JSON for programs, Markdown tables for people, each whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmgen.errors import OutputError
from mmgen.pictures import atomic_file

__all__ = ["output_directory", "table", "write_json", "write_text"]


def output_directory(path: Path) -> Path:
    """Return a directory that exists and can be written to, made if need be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OutputError(
            f"cannot write into {path}: {error.strerror}; choose another directory with -o"
        ) from error
    return path


def write_json(path: Path, value: Mapping[str, object]) -> None:
    """Write a JSON file, indented."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8."""
    with atomic_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; all columns but the first stand right."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows))
