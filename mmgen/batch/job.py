"""A job directory: what the job is, so that only the same job goes on in it.

`job.json` states inputs, settings and fingerprints. A second run with the same command continues;
one that differs in anything that decides results is refused and told what changed. A lock keeps
two processes from writing at once.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from mmgen import __version__
from mmgen.batch.log import ResultsLog
from mmgen.errors import DataError, OutputError, SettingsError
from mmgen.pictures import atomic_file

__all__ = ["SPOOL_NAME", "Identity", "JobDirectory", "Part", "sync_folder"]

MANIFEST_NAME = "job.json"
LOG_NAME = "log.jsonl"
SPOOL_NAME = "spool"
_MAX_CHANGES_TOLD = 6


@dataclass(frozen=True, slots=True)
class Part:
    """One of the equal parts that an array of jobs divides an input into."""

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise SettingsError(
                f"--shard is I/N with I from 0 to N-1, got {self.index}/{self.count}"
            )

    @classmethod
    def parse(cls, text: str) -> Part:
        """Return the part that a user names as `i/n`."""
        index, slash, count = text.partition("/")
        if not (slash and index.isdecimal() and count.isdecimal()):
            raise SettingsError(f"--shard is I/N, such as 0/8, got {text!r}")
        return cls(int(index), int(count))

    def rows(self, num_rows: int) -> range:
        """Return the rows of this part: a run of neighbours."""
        return range(num_rows * self.index // self.count, num_rows * (self.index + 1) // self.count)

    def folder(self, output: Path) -> Path:
        """Return the job directory of this part."""
        if self.count == 1:
            return output
        digits = max(3, len(str(self.count - 1)))
        return output / f"part-{self.index:0{digits}d}-of-{self.count:0{digits}d}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Everything that decides a job's results, as JSON values."""

    task: str
    """What is done with each row: `caption`, `generate`, ..."""
    source: Mapping[str, Any]
    """The input: kind, files, rows and a digest of them."""
    settings: Mapping[str, Any]
    """Settings of the task and forms of output."""
    model: Mapping[str, Any]
    """Fingerprints and defaults of what answers."""
    part: str = "0/1"

    def changes(self, other: Mapping[str, Any]) -> list[str]:
        """Return how a stored identity differs, one phrase per value."""
        before, now = _flat(other), _flat(self.content())
        return [
            f"{name} was {_shown(before.get(name))} and is {_shown(now.get(name))}"
            for name in dict.fromkeys([*before, *now])
            if before.get(name) != now.get(name)
        ]

    def content(self) -> dict[str, Any]:
        """Return the identity as it is stored."""
        content = {
            "task": self.task,
            "input": dict(self.source),
            "settings": dict(self.settings),
            "model": dict(self.model),
            "part": self.part,
        }
        # As it comes back from disk: tuples are lists there.
        stored: dict[str, Any] = json.loads(json.dumps(content))
        return stored


class JobDirectory:
    """A directory that one job owns."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def spool(self) -> Path:
        """Where results wait until they are packed."""
        return self.path / SPOOL_NAME

    def check(self, identity: Identity | None = None) -> bool:
        """Refuse a directory of something else; return whether the job has begun here.

        Args:
            identity: the job, if it is known already.
        """
        if not self.path.exists():
            return False
        if not self.path.is_dir():
            raise OutputError(f"{self.path} is not a directory; choose another with -o")
        stored = self._stored()
        if stored is None:
            known = {SPOOL_NAME, "lock", LOG_NAME}
            others = [
                entry.name
                for entry in self.path.iterdir()
                if entry.name not in known and not entry.name.startswith(("stdin.", ".", "part-"))
            ]
            if others:
                raise OutputError(
                    f"{self.path} holds {sorted(others)[0]} and is no batch job; choose an empty "
                    "or a new directory with -o"
                )
            return False
        if identity is not None:
            changes = identity.changes(stored)
            if changes:
                more = len(changes) - _MAX_CHANGES_TOLD
                told = "; ".join(changes[:_MAX_CHANGES_TOLD]) + (f"; {more} more" * (more > 0))
                raise SettingsError(
                    f"{self.path} holds another job: {told}. Repeat the first command to continue "
                    "it, or choose another directory with -o"
                )
        return True

    def begin(self, identity: Identity) -> None:
        """Write the manifest, unless the same job has begun here."""
        if self.check(identity):
            return
        content = {
            "format": "mmgen-batch",
            "version": 1,
            "mmgen": __version__,
            **identity.content(),
        }
        with atomic_file(self.path / MANIFEST_NAME) as partial:
            partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        sync_folder(self.path)

    def make(self) -> None:
        """Make the directory, so that one that cannot be written is found early."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot write into {self.path}: {error.strerror}") from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the directory and keep other processes out; clear what a kill left behind."""
        self.make()
        lock: IO[bytes] | None = None
        try:
            lock = (self.path / "lock").open("wb")
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            assert lock is not None
            lock.close()
            raise OutputError(
                f"another process works on {self.path}; wait for it, or stop it first"
            ) from None
        except OSError as error:
            raise OutputError(f"cannot write into {self.path}: {error.strerror}") from error
        with lock:
            self._clear_partial_files()
            yield

    def open_log(self, rows: range) -> ResultsLog:
        """Open the results log of the job's rows."""
        return ResultsLog(self.path / LOG_NAME, rows.start, rows.stop)

    def _clear_partial_files(self) -> None:
        for folder in [self.path, *(item for item in self.path.iterdir() if item.is_dir())]:
            for entry in os.scandir(folder):
                if entry.name.startswith(".") and entry.name.endswith(".partial"):
                    Path(entry.path).unlink(missing_ok=True)

    def _stored(self) -> dict[str, Any] | None:
        path = self.path / MANIFEST_NAME
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise DataError(f"cannot read {path}: {error}") from error
        if not isinstance(content, dict) or content.get("format") != "mmgen-batch":
            raise OutputError(f"{path} describes no batch job; choose another directory with -o")
        if content.pop("version", None) != 1:
            raise OutputError(
                f"{path} was written by another version of mmgen; finish the job with that one"
            )
        content.pop("format")
        content.pop("mmgen", None)
        return content


def sync_folder(folder: Path) -> None:
    """Make the names of a folder's files durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    """Return nested objects as one, names joined by dots."""
    if not isinstance(value, dict):
        return {name: value}
    flat: dict[str, Any] = {}
    for key, item in value.items():
        flat |= _flat(item, f"{name}.{key}" if name else str(key))
    return flat


def _shown(value: Any) -> str:
    text = "not set" if value is None else json.dumps(value)
    return text if len(text) <= 80 else f"{text[:79]}…"
