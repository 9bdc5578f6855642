"""All conversations in one SQLite file, written as they grow.

Every save is one transaction that writes what changed, so a process that is killed loses nothing
that was saved before. Two programs may use one file. A file that is damaged is kept aside and
reported, never overwritten.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from mmgen_chat.conversation import Conversation, Picture, Segment, Turn, Words, now
from mmgen_chat.errors import StoreError
from mmgen_chat.store_rows import (
    PICTURE_COLUMNS,
    TURN_COLUMNS,
    picture_of,
    picture_row,
    segment_rows,
    turn_of,
    turn_row,
)
from mmgen_chat.store_schema import migrate, set_aside

__all__ = ["BROKEN_OFF", "Entry", "KeptPicture", "Store"]

BROKEN_OFF = "the program ended before the answer was complete"
"""The failure of a turn that is found running on disk."""

MAX_CHECKED_BYTES = 1 << 28
"""Larger files are not read in full for damage when they are opened."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A conversation in the list."""

    id: str
    title: str
    created: datetime
    changed: datetime
    num_turns: int
    num_pictures: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptPicture:
    """A picture in the gallery, and where it belongs."""

    picture: Picture
    turn_id: str
    conversation_id: str
    title: str
    """Of the conversation."""


class Store:
    """Reads and writes conversations. Any thread may call it; calls take turns."""

    def __init__(self, path: Path, *, seconds_to_wait: float = 5.0) -> None:
        """Open a file, or make one.

        Args:
            seconds_to_wait: how long to wait for another program that is writing.

        Raises:
            StoreError: the file cannot be used, and it is not because of damage.
        """
        self.path = path
        self.notice: str | None = None
        """What the user must be told about the opening, if anything."""
        self._lock = threading.Lock()
        self._saved: dict[str, Turn] = {}
        self._seconds_to_wait = seconds_to_wait
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"cannot keep conversations in {path.parent}: {error.strerror}; name another "
                "file with --database"
            ) from error
        try:
            self._connection = self._open()
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                raise self._error(error) from error
            aside = set_aside(path)
            self.notice = (
                f"the conversations in {path} are damaged ({error}); the file was kept as "
                f"{aside.name} beside it, and a new one begun"
            )
            try:
                self._connection = self._open()
            except sqlite3.Error as again:
                raise self._error(again) from again

    def save(self, conversation: Conversation) -> None:
        """Write what changed since the last save.

        Raises:
            StoreError: it cannot be written; what was saved before stays.
        """
        with self._lock:
            changed = [
                turn for turn in conversation.turns.values() if self._saved.get(turn.id) is not turn
            ]
            with self._transaction() as connection:
                connection.execute(
                    "INSERT INTO conversations (id, title, created, changed, leaf_id) "
                    "VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET "
                    "title = excluded.title, changed = excluded.changed, "
                    "leaf_id = excluded.leaf_id",
                    (
                        conversation.id,
                        _storable(conversation.title),
                        conversation.created.isoformat(),
                        conversation.changed.isoformat(),
                        conversation.leaf_id,
                    ),
                )
                for turn in changed:
                    self._save_turn(connection, turn, conversation.id)
            # Only now: a transaction that failed has saved nothing.
            self._saved |= {turn.id: turn for turn in changed}

    def load(self, conversation_id: str) -> Conversation:
        """Return a conversation; turns that were running when their program died have failed.

        Raises:
            StoreError: there is none of this id, or it cannot be read.
        """
        with self._lock, self._reading() as connection:
            row = connection.execute(
                "SELECT id, title, created, changed, leaf_id FROM conversations WHERE id = ?",
                (conversation_id,),
            ).fetchone()
            if row is None:
                raise StoreError(f"there is no conversation {conversation_id} in {self.path}")
            turns = self._turns(connection, conversation_id)
            self._saved |= turns
        turns = {
            key: replace(turn, state="failed", failure=BROKEN_OFF)
            if turn.state == "running"
            else turn
            for key, turn in turns.items()
        }
        return Conversation(
            id=row[0],
            title=row[1],
            created=datetime.fromisoformat(row[2]),
            changed=datetime.fromisoformat(row[3]),
            turns=turns,
            leaf_id=row[4] if row[4] in turns else None,
        )

    def entries(self, search: str = "", *, limit: int = 1000) -> list[Entry]:
        """Return the conversations, the last changed first.

        Args:
            search: words of which each must occur in the title, in what was said, in the prompt
                of a picture or in its alternative text, in any case.
        """
        conditions, values = [], []
        for word in search.split():
            conditions.append(
                "(contains(c.title, ?) OR EXISTS (SELECT 1 FROM turns t "
                "LEFT JOIN segments s ON s.turn_id = t.id "
                "LEFT JOIN pictures p ON p.id = s.picture_id WHERE t.conversation_id = c.id AND "
                "(contains(s.text, ?) OR contains(p.alt, ?) OR contains(p.source, ?) "
                "OR contains(json_extract(p.drawing, '$.prompt'), ?))))"
            )
            values += [word] * 5
        where = f"WHERE {' AND '.join(conditions)} " if conditions else ""
        with self._lock, self._reading() as connection:
            rows = connection.execute(
                "SELECT c.id, c.title, c.created, c.changed, "
                "(SELECT COUNT(*) FROM turns t WHERE t.conversation_id = c.id), "
                "(SELECT COUNT(*) FROM pictures p JOIN turns t ON t.id = p.turn_id "
                f"WHERE t.conversation_id = c.id) FROM conversations c {where}"
                "ORDER BY c.changed DESC LIMIT ?",
                (*values, limit),
            ).fetchall()
        return [
            Entry(
                id=row[0],
                title=row[1],
                created=datetime.fromisoformat(row[2]),
                changed=datetime.fromisoformat(row[3]),
                num_turns=row[4],
                num_pictures=row[5],
            )
            for row in rows
        ]

    def pictures(self, *, limit: int = 100, offset: int = 0) -> list[KeptPicture]:
        """Return the pictures that were drawn in all conversations, the newest first."""
        columns = ", ".join(f"p.{name}" for name in PICTURE_COLUMNS)
        with self._lock, self._reading() as connection:
            rows = connection.execute(
                f"SELECT c.id, c.title, {columns} FROM pictures p "
                "JOIN turns t ON t.id = p.turn_id JOIN conversations c ON c.id = t.conversation_id "
                "WHERE p.drawing IS NOT NULL ORDER BY t.number DESC, p.rowid DESC "
                "LIMIT ? OFFSET ?",
                (limit, offset),
            ).fetchall()
        return [
            KeptPicture(
                picture=picture_of(row[2:]),
                turn_id=row[2 + PICTURE_COLUMNS.index("turn_id")],
                conversation_id=row[0],
                title=row[1],
            )
            for row in rows
        ]

    def rename(self, conversation_id: str, title: str) -> None:
        """Give a conversation another title."""
        with self._lock, self._transaction() as connection:
            connection.execute(
                "UPDATE conversations SET title = ?, changed = ? WHERE id = ?",
                (_storable(title), now().isoformat(), conversation_id),
            )

    def delete(self, conversation_id: str) -> None:
        """Remove a conversation with all its turns and pictures."""
        with self._lock, self._transaction() as connection:
            connection.execute("DELETE FROM conversations WHERE id = ?", (conversation_id,))
            self._saved.clear()

    def close(self) -> None:
        """Close the file."""
        with self._lock, suppress(sqlite3.Error):
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path,
            timeout=self._seconds_to_wait,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            # With WAL this survives the death of the process; only a power cut may cost the end.
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA foreign_keys = ON")
            connection.create_function("contains", 2, _contains, deterministic=True)
            if self.path.stat().st_size <= MAX_CHECKED_BYTES:
                found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
                if found != "ok":
                    raise sqlite3.DatabaseError(f"malformed: {' '.join(found.split())}")
            migrate(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _save_turn(self, connection: sqlite3.Connection, turn: Turn, conversation_id: str) -> None:
        before = self._saved.get(turn.id)
        known = {} if before is None else {item.id: item for item in before.pictures}
        row = [_storable(value) for value in turn_row(turn, conversation_id)]
        connection.execute(_upsert("turns", TURN_COLUMNS), row)
        for picture in turn.pictures:
            if known.get(picture.id) is not picture:
                row = [_storable(value) for value in picture_row(picture, turn.id)]
                connection.execute(_upsert("pictures", PICTURE_COLUMNS), row)
        connection.execute("DELETE FROM segments WHERE turn_id = ?", (turn.id,))
        connection.executemany(
            "INSERT INTO segments (turn_id, position, text, picture_id) VALUES (?, ?, ?, ?)",
            [[_storable(value) for value in row] for row in segment_rows(turn)],
        )

    def _turns(self, connection: sqlite3.Connection, conversation_id: str) -> dict[str, Turn]:
        pictures = {
            row[0]: picture_of(row)
            for row in connection.execute(
                f"SELECT {', '.join(f'p.{name}' for name in PICTURE_COLUMNS)} FROM pictures p "
                "JOIN turns t ON t.id = p.turn_id WHERE t.conversation_id = ?",
                (conversation_id,),
            )
        }
        segments: dict[str, list[Segment]] = {}
        for turn_id, text, picture_id in connection.execute(
            "SELECT s.turn_id, s.text, s.picture_id FROM segments s JOIN turns t "
            "ON t.id = s.turn_id WHERE t.conversation_id = ? ORDER BY s.turn_id, s.position",
            (conversation_id,),
        ):
            item = Words(text) if picture_id is None else pictures[picture_id]
            segments.setdefault(turn_id, []).append(item)
        rows = connection.execute(
            f"SELECT {', '.join(TURN_COLUMNS)} FROM turns WHERE conversation_id = ? "
            "ORDER BY number",
            (conversation_id,),
        ).fetchall()
        return {row[0]: turn_of(row, segments.get(row[0], ())) for row in rows}

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        try:
            yield self._connection
        except sqlite3.Error as error:
            raise self._error(error) from error
        except (KeyError, TypeError, ValueError) as error:
            # Rows that SQLite reads, but that this program never wrote.
            raise StoreError(
                f"{self.path} holds a conversation that cannot be understood "
                f"({type(error).__name__}: {error}); the others can be opened"
            ) from error

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        connection = self._connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise self._error(error) from error

    def _error(self, error: sqlite3.Error) -> StoreError:
        if _code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return StoreError(
                f"{self.path} is locked by another program, and waiting {self._seconds_to_wait:g} "
                "seconds did not help; close the other one, or name another file with --database"
            )
        if _is_damage(error):
            return StoreError(
                f"{self.path} is damaged: {error}; start again, and it will be kept aside"
            )
        return StoreError(f"{self.path} cannot be used: {error}; name another file with --database")


def _upsert(table: str, columns: tuple[str, ...]) -> str:
    updates = ", ".join(f"{name} = excluded.{name}" for name in columns[1:])
    return (
        f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))}) "
        f"ON CONFLICT (id) DO UPDATE SET {updates}"
    )


def _code(error: sqlite3.Error) -> int:
    """Return the primary result code; 0 where the error did not come from SQLite itself."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _is_damage(error: sqlite3.Error) -> bool:
    damaged = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
    return _code(error) in damaged or str(error).startswith("malformed: ")


def _contains(text: str | None, word: str) -> bool:
    return text is not None and word.casefold() in text.casefold()


def _storable(value: object) -> object:
    """Return a value that SQLite takes: text without surrogates, which no UTF-8 can hold."""
    if isinstance(value, str):
        return value.encode("utf-8", errors="replace").decode("utf-8")
    return value
