"""What a half-typed word may become: commands, their arguments, and files after an `@`.

Works on plain text and gives plain text; the list on the screen is `widgets.completion_list`.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from textual.fuzzy import FuzzySearch

from mmgen_chat.slash_commands import COMMANDS

__all__ = ["Candidate", "Hunt", "complete", "find_pictures", "hunt_for", "paths_for"]

PICTURE_SUFFIXES = frozenset(
    [".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".ico", ".avif"]
)
MAX_CANDIDATES = 50
MAX_FOUND = 4000
_MAX_SECONDS = 0.5
_MAX_DEPTH = 6
_SKIPPED = frozenset(["node_modules", "__pycache__", "venv", "site-packages"])


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to go on."""

    text: str
    """What takes the place of the half-typed word."""
    detail: str = ""
    """One line about it."""
    is_final: bool = True
    """Whether a blank follows; a folder goes on instead."""


@dataclass(frozen=True, slots=True)
class Hunt:
    """A half-typed word and what it may be."""

    kind: str
    """`command`, `file`, or the kind of a command's argument."""
    word: str
    """What of it stands there already."""


def hunt_for(before: str) -> Hunt | None:
    """Return what is being typed at the end of a text, None where nothing can be completed."""
    if re.fullmatch(r"/[a-z]*", before):
        return Hunt("command", before[1:])
    if typed := re.fullmatch(r"/([a-z]+) +([^\s]*)", before):
        command = COMMANDS.get(typed[1])
        if command is not None and command.choice not in ("none", "text"):
            return Hunt(command.choice, typed[2])
    if typed := re.fullmatch(r"/(?:attach|compare) .*?([^\s]*)", before, re.DOTALL):
        return Hunt("path" if before.startswith("/attach") else "model", typed[1])
    if typed := re.search(r"(?:^|\s)@([^\s]*)$", before):
        return Hunt("file", typed[1])
    return None


def complete(
    hunt: Hunt, choices: Mapping[str, Sequence[Candidate]], files: Sequence[str]
) -> list[Candidate]:
    """Return the ways to go on, the best first.

    Args:
        choices: what there is for each kind of argument.
        files: paths of pictures for `@`, as `find_pictures` gives them.
    """
    if hunt.kind == "command":
        return _ranked(
            hunt.word,
            [
                Candidate(name, f"{command.form}  {command.summary}".strip())
                for name, command in COMMANDS.items()
            ],
        )
    if hunt.kind == "path" or (hunt.kind == "file" and hunt.word[:1] in ("/", "~", ".")):
        return list(paths_for(hunt.word))[:MAX_CANDIDATES]
    if hunt.kind == "file":
        return _ranked(hunt.word, [Candidate(path) for path in files])
    return _ranked(hunt.word, choices.get(hunt.kind, ()))


def paths_for(word: str) -> Iterator[Candidate]:
    """Yield the pictures and folders whose path begins with a half-typed one."""
    folder, _, start = word.rpartition("/")
    place = Path(os.path.expanduser(f"{folder}/" if "/" in word else "."))  # noqa: PTH111
    try:
        entries = sorted(os.scandir(place), key=lambda entry: entry.name.lower())
    except OSError:
        return
    for entry in entries:
        if not entry.name.startswith(start) or (entry.name[0] == "." and not start):
            continue
        path = f"{folder}/{entry.name}" if "/" in word else entry.name
        if entry.is_dir():
            yield Candidate(f"{path}/", "folder", is_final=False)
        elif Path(entry.name).suffix.lower() in PICTURE_SUFFIXES:
            yield Candidate(path)


def find_pictures(root: Path) -> list[str]:
    """Return the paths of pictures below a folder, relative to it, the nearest and newest first.

    A large tree is searched for a moment only.
    """
    end = time.monotonic() + _MAX_SECONDS
    found: list[tuple[int, float, str]] = []
    for depth, entry in _walk(root):
        if len(found) >= MAX_FOUND or time.monotonic() > end:
            break
        try:
            found.append((depth, -entry.stat().st_mtime, os.path.relpath(entry.path, root)))
        except OSError:
            continue
    return [path for _, _, path in sorted(found)]


def _walk(root: Path) -> Iterator[tuple[int, os.DirEntry[str]]]:
    level: list[str] = [str(root)]
    for depth in range(_MAX_DEPTH):
        below: list[str] = []
        for folder in level:
            try:
                entries = list(os.scandir(folder))
            except OSError:
                continue
            for entry in entries:
                if entry.name.startswith(".") or entry.name in _SKIPPED:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    below.append(entry.path)
                elif Path(entry.name).suffix.lower() in PICTURE_SUFFIXES:
                    yield depth, entry
        level = below


def _ranked(word: str, candidates: Iterable[Candidate]) -> list[Candidate]:
    """Return what matches, those that begin with the word before those that only contain it."""
    if not word:
        return list(candidates)[:MAX_CANDIDATES]
    search = FuzzySearch()
    scored: list[tuple[bool, float, int, Candidate]] = []
    for index, candidate in enumerate(candidates):
        score, _ = search.match(word, candidate.text)
        if score > 0:
            begins = candidate.text.lower().startswith(word.lower())
            scored.append((not begins, -score, index, candidate))
    return [item[-1] for item in sorted(scored, key=lambda item: item[:3])[:MAX_CANDIDATES]]
