"""Where drawn pictures go."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from mmgen.errors import OutputError, SettingsError

__all__ = ["check_writable", "plan_paths", "slug"]


def slug(prompt: str) -> str:
    """Return a prompt as part of a file name."""
    words = re.sub(r"[\W_]+", "-", prompt.lower()).strip("-")
    return words[:40].rstrip("-") or "picture"


def plan_paths(prompts: Sequence[str], number: int, output: Path | None) -> list[Path]:
    """Return the file of each picture, those of one prompt together.

    A given directory gets the same names every time; without any, no file is overwritten.
    """
    is_single = len(prompts) * number == 1
    is_file = output is not None and output.suffix != "" and not output.is_dir()
    if output is not None and is_file:
        if output.suffix.lower() != ".png":
            raise SettingsError(f"pictures are written as PNG, got {output}; end it in .png")
        if not is_single:
            raise SettingsError(
                f"{len(prompts) * number} pictures do not fit the one file {output}; "
                "give a directory"
            )
        return [output]
    digits = max(3, len(str(len(prompts))))
    paths: list[Path] = []
    for index, prompt in enumerate(prompts, start=1):
        stem = slug(prompt) if len(prompts) == 1 else f"{index:0{digits}d}-{slug(prompt)}"
        for sample in range(1, number + 1):
            name = f"{stem}-{sample}" if number > 1 else stem
            path = (output or Path()) / f"{name}.png"
            paths.append(path if output is not None else _unused(path))
    return paths


def check_writable(paths: Sequence[Path]) -> None:
    """Make the directories of files, and make sure that they can be written."""
    for directory in dict.fromkeys(path.parent for path in paths):
        probe = directory / ".mmgen-probe"
        try:
            directory.mkdir(parents=True, exist_ok=True)
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise OutputError(
                f"cannot write into {directory}: {error.strerror}; choose another place with -o"
            ) from error
    for path in paths:
        if path.is_dir():
            raise OutputError(f"cannot write {path}: it is a directory")


def _unused(path: Path) -> Path:
    number, candidate = 1, path
    while candidate.exists():
        number += 1
        candidate = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return candidate
