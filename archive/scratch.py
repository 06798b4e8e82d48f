"""Room for relations of any size beside a process: a DuckDB database in a temporary folder (TMPDIR).

with scratch("ingest") as sql: ...; or Scratch("plan"), for as long as its owner lives.
What does not fit into memory_mib lies in the folder, which goes on leaving: 10^8 images need no more memory than 10^6.
"""

from __future__ import annotations

import contextlib
import tempfile
import weakref
from collections.abc import Iterator

import duckdb
import pyarrow as pa

from archive.literal import literal
from model_store.machine import usable_memory_bytes

MEMORY_MIB = 1024
LARGE_MIB = 2048
"""For joins of whole archives."""


class Scratch:
    """`sql` is the connection; one thread uses it at a time. Removed by `close`, or with its last owner.

    Without `in_order`, tables are made faster, in any order but that of an `order by`.
    """

    def __init__(self, purpose: str, memory_mib: int = MEMORY_MIB, in_order: bool = True) -> None:
        prefix = f"resight-{purpose}-"
        folder = tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True)
        self.sql = duckdb.connect(f"{folder.name}/scratch.db")
        self.sql.execute(f"set memory_limit = '{memory_mib}MiB'; set timezone = 'UTC'")
        self.sql.execute(f"set temp_directory = {literal(f'{folder.name}/spill')}")
        self.sql.execute(f"set preserve_insertion_order = {in_order}")
        self._close = weakref.finalize(self, _close, self.sql, folder)

    def close(self) -> None:
        self._close()


@contextlib.contextmanager
def scratch(purpose: str, memory_mib: int = MEMORY_MIB) -> Iterator[duckdb.DuckDBPyConnection]:
    """One thread uses the connection at a time."""
    with contextlib.closing(Scratch(purpose, memory_mib)) as room:
        yield room.sql


def half_of_memory_mib() -> int:
    """Return half of the memory of the machine, or of the control group: the rest is for Python and other programs."""
    return max(1, usable_memory_bytes() // 2**21)


def windows(
    sql: duckdb.DuckDBPyConnection, table: str, rows: int, start: int = 0, stop: int | None = None
) -> Iterator[pa.Table]:
    """Rows of a table from `start` to before `stop`, in the order it was made in, so many at a time.

    Other statements may run between. The table must not have been changed since it was made.
    """
    if stop is None:
        stop = int(sql.sql(f"select count(*) from {table}").fetchall()[0][0])
    for first in range(start, stop, rows):
        last = min(first + rows, stop) - 1
        part = f"from {table} where rowid between {first} and {last} order by rowid"
        yield sql.sql(part).to_arrow_table()


def _close(sql: duckdb.DuckDBPyConnection, folder: tempfile.TemporaryDirectory[str]) -> None:
    sql.close()
    folder.cleanup()
