"""The record on disk: which files the server has, and which it refused.

Each outcome is one transaction of SQLite, so a process that is killed loses at most that of its last upload. That file
is sent again, and the server keeps each content once.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any, NamedTuple

from resight_client.server import Rejected

TABLE = """
CREATE TABLE IF NOT EXISTS outcomes (
    target TEXT NOT NULL, path BLOB NOT NULL, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
    sha256 TEXT NOT NULL, refusal TEXT NOT NULL, PRIMARY KEY (target, path)) WITHOUT ROWID
"""
INDEX = "CREATE INDEX IF NOT EXISTS contents ON outcomes (target, sha256) WHERE refusal = ''"


class Found(NamedTuple):
    """A file as it was when it was found; `path` is absolute and encoded by the file system."""

    path: bytes
    size: int
    mtime_ns: int


def default_path() -> Path:
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "resight-client" / "record.sqlite"


class Record:
    """The outcomes for one target: a server, a model and a camera. Methods raise Rejected if the disk fails."""

    def __init__(self, place: Path, target: str) -> None:
        self._place, self._target = place, target
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(str(place), timeout=60.0)
        except (sqlite3.Error, OSError) as error:
            raise self._unusable(error) from error
        self._run(TABLE)
        self._run(INDEX)

    def close(self) -> None:
        self._db.close()

    def outcome(self, file: Found) -> str | None:
        """Return "" if this file was sent, the reason if it was refused, and None if neither."""
        query = "SELECT refusal FROM outcomes WHERE target = ? AND path = ? AND size = ? AND mtime_ns = ?"
        rows = self._run(query, self._target, *file)
        return rows[0][0] if rows else None

    def has_content(self, sha256: str) -> bool:
        """Return whether a file with this content was sent."""
        query = "SELECT 1 FROM outcomes WHERE target = ? AND sha256 = ? AND refusal = '' LIMIT 1"
        return bool(self._run(query, self._target, sha256))

    def add(self, file: Found, sha256: str, refusal: str = "") -> None:
        """Replace the outcome of a file."""
        statement = "INSERT OR REPLACE INTO outcomes VALUES (?, ?, ?, ?, ?, ?)"
        self._run(statement, self._target, *file, sha256, refusal)

    def clear(self) -> None:
        """Remove all outcomes for the target."""
        self._run("DELETE FROM outcomes WHERE target = ?", self._target)

    def _run(self, statement: str, *values: object) -> list[Any]:
        try:
            with self._db:
                return self._db.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    def _unusable(self, error: Exception) -> Rejected:
        return Rejected(
            f"the record {self._place} cannot be used: {error}; if it is damaged, remove it: files are then sent "
            "again, and the server keeps each content once"
        )
