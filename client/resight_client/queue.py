"""The queue on disk: every file that was found, and whether the server has it.

Each change is one transaction of SQLite, so a process that is killed loses at most the record of its last upload.
That file is sent again, and the server keeps each content once.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from resight_client.server import ClientError

TABLE = """
CREATE TABLE IF NOT EXISTS files (
    target TEXT NOT NULL, path BLOB NOT NULL, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
    state TEXT NOT NULL, sha256 TEXT, detail TEXT, PRIMARY KEY (target, path)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS contents ON files (target, sha256) WHERE state = 'sent'
"""
OFFER = """
INSERT INTO files (target, path, size, mtime_ns, state) VALUES (?, ?, ?, ?, 'waiting')
ON CONFLICT (target, path) DO UPDATE SET
    size = excluded.size, mtime_ns = excluded.mtime_ns, state = 'waiting', sha256 = NULL, detail = NULL
WHERE size <> excluded.size OR mtime_ns <> excluded.mtime_ns
"""
IN_FOLDER = "target = ? AND path >= ? AND path < ?"
PAGE = 500


@dataclass(frozen=True)
class Found:
    """A file as it was when it was found; `path` is absolute and encoded by the file system."""

    path: bytes
    size: int
    mtime_ns: int


def default_path() -> Path:
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "resight-client" / "queue.sqlite"


class Queue:
    """The files of one folder for one target: a server and a camera."""

    def __init__(self, place: Path, target: str, folder: bytes) -> None:
        self._place, separator = place, os.fsencode(os.sep)
        start = folder.rstrip(separator) + separator
        self._of = (target, start, start[:-1] + bytes([separator[0] + 1]))
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(str(place), timeout=60.0)
            self._db.executescript(TABLE)
        except (sqlite3.Error, OSError) as error:
            raise ClientError(
                f"the queue {place} cannot be used: {error}; if it is damaged, remove it: files are then sent again, "
                "and the server keeps each content once"
            ) from error

    def close(self) -> None:
        self._db.close()

    def offer(self, files: Iterable[Found]) -> None:
        """Add files; one that changed since it was sent or refused waits again."""
        page: list[tuple[object, ...]] = []
        for file in files:
            page.append((self._of[0], file.path, file.size, file.mtime_ns))
            if len(page) == PAGE:
                self._offer(page)
                page = []
        self._offer(page)

    def again(self) -> None:
        """Let refused files wait again."""
        self._run(
            f"UPDATE files SET state = 'waiting' WHERE state = 'refused' AND {IN_FOLDER}", *self._of
        )

    def files(self, state: str) -> Iterator[Found]:
        """Yield the files in a state in order of their paths, and read few of them at a time."""
        target, start, end = self._of
        after = start
        while True:
            rows = self._db.execute(
                "SELECT path, size, mtime_ns FROM files WHERE target = ? AND path > ? AND path < ? "
                f"AND state = ? ORDER BY path LIMIT {PAGE}",
                (target, after, end, state),
            ).fetchall()
            for row in rows:
                yield Found(*row)
            if not rows:
                return
            after = rows[-1][0]

    def is_sent(self, sha256: str) -> bool:
        """Return whether the server has this content from this camera."""
        query = "SELECT 1 FROM files WHERE target = ? AND sha256 = ? AND state = 'sent' LIMIT 1"
        return self._db.execute(query, (self._of[0], sha256)).fetchone() is not None

    def sent(self, file: Found, sha256: str) -> None:
        self._set(file, "sent", sha256, None)

    def refused(self, file: Found, detail: str) -> None:
        self._set(file, "refused", None, detail)

    def forget(self, file: Found) -> None:
        """Remove a file that is missing or changed; the next scan finds it again."""
        self._run("DELETE FROM files WHERE target = ? AND path = ?", self._of[0], file.path)

    def count(self, state: str) -> tuple[int, int]:
        """Return number and bytes of the files in a state."""
        query = (
            f"SELECT count(*), coalesce(sum(size), 0) FROM files WHERE {IN_FOLDER} AND state = ?"
        )
        number, size = self._db.execute(query, (*self._of, state)).fetchone()
        return int(number), int(size)

    def refusals(self, most: int) -> list[tuple[bytes, str]]:
        """Return path and reason of the first refused files."""
        query = f"SELECT path, detail FROM files WHERE {IN_FOLDER} AND state = 'refused' ORDER BY path LIMIT ?"
        return self._db.execute(query, (*self._of, most)).fetchall()

    def _set(self, file: Found, state: str, sha256: str | None, detail: str | None) -> None:
        """Set the state of a file, unless the file was found with other facts since."""
        self._run(
            "UPDATE files SET state = ?, sha256 = ?, detail = ? "
            "WHERE target = ? AND path = ? AND mtime_ns = ? AND size = ?",
            state,
            sha256,
            detail,
            self._of[0],
            file.path,
            file.mtime_ns,
            file.size,
        )

    def _offer(self, page: list[tuple[object, ...]]) -> None:
        with self._db:
            self._db.executemany(OFFER, page)

    def _run(self, statement: str, *values: object) -> None:
        with self._db:
            self._db.execute(statement, values)
