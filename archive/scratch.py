"""Room for relations of any size beside a process: a DuckDB database in a temporary folder (TMPDIR).

with scratch("ingest") as sql: ...; what does not fit into MEMORY_MIB lies in the folder, which goes on leaving.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator

import duckdb
import pyarrow as pa

MEMORY_MIB = 1024


@contextlib.contextmanager
def scratch(purpose: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """One thread uses the connection at a time."""
    prefix = f"resight-{purpose}-"
    with (
        tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as folder,
        duckdb.connect(f"{folder}/scratch.db") as sql,
    ):
        sql.execute(f"set memory_limit = '{MEMORY_MIB}MiB'; set timezone = 'UTC'")
        sql.execute(f"set temp_directory = '{folder}/spill'")
        yield sql


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
