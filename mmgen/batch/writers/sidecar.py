"""Captions beside pictures: one small file per row, named like the picture.

What a file held before is kept in the job directory first, so that adding to it after a kill adds
once.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path, PurePosixPath
from typing import Literal, TypeAlias

from mmgen.batch.log import Record, ResultsLog
from mmgen.batch.rows import BrokenRow, InputRow
from mmgen.batch.writers.abstract import AbstractWriter
from mmgen.errors import DataError, OutputError, SettingsError
from mmgen.pictures import atomic_file

__all__ = ["Existing", "SidecarRules", "SidecarWriter", "check_sidecars", "sidecar_name"]

Existing: TypeAlias = Literal["refuse", "keep", "overwrite", "append"]
"""What happens where a caption file exists already."""

_MARK_NAME = "sidecars"
_MAX_NAME_BYTES = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class SidecarRules:
    """How captions are written beside pictures."""

    folder: Path | None = None
    """The folder that ids are relative to; None for `captions` in the job directory."""
    extension: str = ".txt"
    """`.json` writes the whole result, any other the words."""
    existing: Existing = "refuse"

    def __post_init__(self) -> None:
        if not self.extension.startswith(".") or "/" in self.extension or len(self.extension) < 2:
            raise SettingsError(f"an extension is like .txt, got {self.extension!r}")
        if self.existing == "append" and self.extension == ".json":
            raise SettingsError("nothing can be appended to .json; overwrite it, or choose .txt")


class SidecarWriter(AbstractWriter):
    """Writes a file per answered row."""

    def __init__(self, job: Path, rows: range, words: str, rules: SidecarRules) -> None:
        """Find where an earlier run left off.

        Args:
            words: the field that is the caption.
        """
        self._words = words
        self._rules = rules
        self._folder = rules.folder or job / "captions"
        self._mark = job / _MARK_NAME
        self._before = job / "before"
        self._position, self._stop = rows.start, rows.stop
        if self._mark.exists():
            self._position = int(self._mark.read_text())
        if rules.existing == "append" and self._position < self._stop:
            self._before.mkdir(exist_ok=True)
        self._kept: list[Path] = []

    @property
    def position(self) -> int:
        return self._position

    def write(self, record: Record) -> None:
        if record.fault is None:
            self._write(record)
        self._position = record.row + 1

    def rewind(self, row: int, log: ResultsLog) -> None:
        if self._rules.existing == "append" and row < self._position:
            raise SettingsError(
                "captions were appended to sidecars already, so rows cannot be tried again here; "
                "make a new job of the rows in errors.jsonl"
            )
        self._position = min(self._position, row)

    def flush(self) -> None:
        with atomic_file(self._mark) as partial:
            partial.write_text(str(self._position))
        for path in self._kept:
            path.unlink(missing_ok=True)
        self._kept.clear()
        if self._position == self._stop and self._before.exists():
            shutil.rmtree(self._before)

    def _write(self, record: Record) -> None:
        path = self._folder / sidecar_name(record.id, self._rules.extension)
        if self._rules.existing == "keep" and path.exists():
            return
        words = record.fields.get(self._words) or ""
        text = words if isinstance(words, str) else "\n".join(words)
        if self._rules.extension == ".json":
            line = {"row": record.row, "id": record.id, **record.fields}
            text = json.dumps(line, ensure_ascii=False)
        elif self._rules.existing == "append":
            text = self._text_before(path) + text
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot make {path.parent}: {error.strerror}") from error
        with atomic_file(path) as partial:
            partial.write_text(text + "\n", encoding="utf-8")

    def _text_before(self, path: Path) -> str:
        """Return what a file held before the job, with a line break at its end."""
        kept = self._before / blake2b(str(path).encode(), digest_size=16).hexdigest()
        if not kept.exists():
            try:
                data = path.read_bytes() if path.exists() else b""
            except OSError as error:
                raise OutputError(f"cannot read {path}: {error.strerror}") from error
            with atomic_file(kept) as partial:
                partial.write_bytes(data)
        self._kept.append(kept)
        text = kept.read_bytes().decode("utf-8", "surrogateescape").rstrip("\n")
        return f"{text}\n" if text else ""


def sidecar_name(id_: str, extension: str) -> str:
    """Return the file of a row's caption, relative to the folder of captions."""
    return str(PurePosixPath(id_).with_suffix("")) + extension


def check_sidecars(source: Iterable[InputRow], rows: range, job: Path, rules: SidecarRules) -> None:
    """Refuse rows that would write one file, and files that are there already.

    Args:
        source: all rows of the input.
        rows: those of the job.

    Raises:
        OutputError: a file exists, and the rules do not say what to do then.
        DataError: two pictures have one caption file.
    """
    folder = rules.folder or job / "captions"
    owners: dict[str, str] = {}
    for row in source:
        if isinstance(row, BrokenRow):
            continue
        name = sidecar_name(row.id, rules.extension)
        if max(len(part.encode("utf-8", "replace")) for part in name.split("/")) > _MAX_NAME_BYTES:
            raise DataError(
                f"the caption file of {row.id[:60]}… would have a name of more than "
                f"{_MAX_NAME_BYTES} bytes; give the row a shorter id"
            )
        if owners.setdefault(name, row.id) != row.id:
            raise DataError(
                f"{owners[name]} and {row.id} would both have the caption file {name}; rename one"
            )
        if row.index in rows and rules.existing == "refuse" and (folder / name).exists():
            raise OutputError(
                f"{folder / name} exists; choose what to do with --existing keep, overwrite or "
                "append"
            )
