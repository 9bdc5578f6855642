"""The tables of the database of conversations, from version to version, and damaged files.

Published steps are never changed: a new version is one more step at the end.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from mmgen_chat.errors import StoreError

__all__ = ["MIGRATIONS", "migrate", "set_aside"]

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE conversations (
        id TEXT PRIMARY KEY,
        title TEXT NOT NULL,
        created TEXT NOT NULL,
        changed TEXT NOT NULL,
        leaf_id TEXT
    );
    CREATE TABLE turns (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        conversation_id TEXT NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
        parent_id TEXT,
        role TEXT NOT NULL,
        state TEXT NOT NULL,
        failure TEXT,
        usage TEXT,
        applied TEXT,
        seconds REAL,
        created TEXT NOT NULL
    );
    CREATE INDEX turns_of_conversation ON turns (conversation_id, number);
    CREATE TABLE pictures (
        id TEXT PRIMARY KEY,
        turn_id TEXT NOT NULL REFERENCES turns (id) ON DELETE CASCADE,
        png BLOB,
        height INTEGER,
        width INTEGER,
        codes BLOB,
        num_codebooks INTEGER,
        layout TEXT,
        tokenizer TEXT,
        fingerprint TEXT,
        drawing TEXT,
        source TEXT,
        alt TEXT
    );
    CREATE INDEX pictures_of_turn ON pictures (turn_id);
    CREATE TABLE segments (
        turn_id TEXT NOT NULL REFERENCES turns (id) ON DELETE CASCADE,
        position INTEGER NOT NULL,
        text TEXT,
        picture_id TEXT REFERENCES pictures (id) ON DELETE CASCADE,
        PRIMARY KEY (turn_id, position)
    ) WITHOUT ROWID;
    """,
)
"""SQL scripts; the version of a database is the number of those it has seen."""


def migrate(connection: sqlite3.Connection, migrations: Sequence[str] = MIGRATIONS) -> None:
    """Bring a database to the newest version, whole or not at all.

    Raises:
        StoreError: it is of a later version than is known here.
    """
    version = _version(connection)
    if version > len(migrations):
        raise StoreError(
            f"the database of conversations has version {version}, but this mmgen-chat knows "
            f"versions up to {len(migrations)}; update mmgen-chat, or name another file with "
            "--database"
        )
    if version == len(migrations):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Another instance may have been faster.
        for script in migrations[_version(connection) :]:
            for statement in script.split(";"):
                if statement.strip():
                    connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(migrations)}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def set_aside(path: Path) -> Path:
    """Rename a damaged file and its companions; return the new name.

    Raises:
        StoreError: that is not possible.
    """
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    aside = path.with_name(f"{path.name}.damaged-{stamp}")
    number = 1
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.name}.damaged-{stamp}-{number}")
    try:
        path.rename(aside)
        for suffix in ("-wal", "-shm"):
            companion = path.with_name(path.name + suffix)
            if companion.exists():
                companion.rename(aside.with_name(aside.name + suffix))
    except OSError as error:
        raise StoreError(
            f"the conversations in {path} are damaged, and the file cannot be kept "
            f"aside: {error.strerror}; move it away, or name another with --database"
        ) from error
    return aside


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])
