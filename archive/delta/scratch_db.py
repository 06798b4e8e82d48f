"""Create temporary DuckDB databases for relations of any size, in a folder below TMPDIR.

with scratch("ingest") as sql: ...; or Scratch("plan"), which lives as long as its owner
Data beyond memory_mib spills to the folder, which is removed on exit: 10^8 images need no more memory than 10^6.
The folder of a process that was killed is removed by the next one that creates a database there.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa

from archive.delta.sql_literal import literal
from model_store.machine import usable_memory_bytes

MEMORY_MIB = 1024
LARGE_MIB = 2048
"""Memory limit for joins of whole archives."""
MOST_LISTED = 2_000_000
"""Rows that are listed by groups at once: lists of groups stay in memory, everything else may spill."""
_DATABASE = "scratch.db"
_ABANDONED_S = 60.0
"""Minimum age of a folder that is removed: in a younger one, DuckDB may be about to lock its file."""
_open: set[str] = set()
"""Folders of this process. Closing a file ends all locks of the process on it, so these are never checked."""


class Scratch:
    """Database with the connection `sql`, for one thread at a time; removed by `close`, or with its last owner.

    Without `in_order`, tables are created faster, in any order unless there is an `order by`.
    """

    def __init__(self, purpose: str, memory_mib: int = MEMORY_MIB, in_order: bool = True) -> None:
        _remove_abandoned()
        prefix = f"resight-{purpose}-"
        folder = tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True)
        _open.add(folder.name)
        self.sql = duckdb.connect(f"{folder.name}/{_DATABASE}")
        self.sql.execute(f"set memory_limit = '{memory_mib}MiB'; set timezone = 'UTC'")
        self.sql.execute(f"set temp_directory = {literal(f'{folder.name}/spill')}")
        self.sql.execute(f"set preserve_insertion_order = {in_order}")
        self._close = weakref.finalize(self, _close, self.sql, folder)

    def close(self) -> None:
        self._close()


@contextlib.contextmanager
def scratch(purpose: str, memory_mib: int = MEMORY_MIB) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield the connection of a new database, for one thread at a time."""
    with contextlib.closing(Scratch(purpose, memory_mib)) as database:
        yield database.sql


def half_of_memory_mib() -> int:
    """Return half of the memory of the machine or control group; the rest is for Python and other programs."""
    return max(1, usable_memory_bytes() // 2**21)


def windows(
    sql: duckdb.DuckDBPyConnection, table: str, rows: int, start: int = 0, stop: int | None = None
) -> Iterator[pa.Table]:
    """Yield rows `start` to `stop` (exclusive) of a table in insertion order, `rows` at a time.

    Other statements may run in between. The table must be unchanged since its creation.
    """
    if stop is None:
        stop = int(sql.execute(f"select count(*) from {table}").fetchall()[0][0])
    for first in range(start, stop, rows):
        last = min(first + rows, stop) - 1
        part = f"from {table} where rowid between {first} and {last} order by rowid"
        yield sql.sql(part).to_arrow_table()


def create_lists(sql: duckdb.DuckDBPyConnection, name: str, source: str, query: str) -> None:
    """Create temporary table `name` of a query with lists of the rows of `source`, about MOST_LISTED at a time.

    The query has the groups with hash(…) % getvariable('parts') = getvariable('part').
    """
    parts = 1 + int(sql.execute(f"select count(*) from {source}").fetchall()[0][0]) // MOST_LISTED
    for part in range(parts):
        sql.execute(f"set variable parts = {parts}; set variable part = {part}")
        sql.execute(f"insert into {name} {query}" if part else f"create or replace temp table {name} as {query}")


def _close(sql: duckdb.DuckDBPyConnection, folder: tempfile.TemporaryDirectory[str]) -> None:
    sql.close()
    folder.cleanup()
    _open.discard(folder.name)


def _remove_abandoned() -> None:
    """Remove the folders of this user's processes that were killed: DuckDB has no lock on their files."""
    for file in Path(tempfile.gettempdir()).glob(f"resight-*-*/{_DATABASE}"):
        with contextlib.suppress(OSError):  # also if another process locks or removes it
            status = file.parent.lstat()
            is_own = status.st_uid == os.geteuid() and str(file.parent) not in _open
            if is_own and time.time() - status.st_mtime > _ABANDONED_S:
                with file.open("r+b") as database:
                    fcntl.lockf(database, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(file.parent)
