"""Room for relations of any size beside a process: a DuckDB database in a temporary folder.

What does not fit into SCRATCH_MIB of memory goes to that folder, so that 10^8 images need no more memory
than 10^6. It is removed with the connection's owner.
"""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Iterator

import duckdb
import pyarrow as pa

SCRATCH_MIB = 2048


class Scratch:
    """`sql` is the connection; one thread uses it at a time."""

    def __init__(self) -> None:
        folder = tempfile.TemporaryDirectory(prefix="resight-plan-", ignore_cleanup_errors=True)
        self.sql = duckdb.connect(f"{folder.name}/scratch.db")
        self.sql.execute(f"set memory_limit = '{SCRATCH_MIB}MiB'")
        self.sql.execute(f"set temp_directory = '{folder.name}/spill'")
        self.sql.execute("set preserve_insertion_order = false; set timezone = 'UTC'")
        self._close = weakref.finalize(self, _close, self.sql, folder)

    def windows(self, relation: str, rows: int) -> Iterator[pa.Table]:
        """All of a relation, so many rows at a time."""
        held: list[pa.RecordBatch] = []
        there = 0
        for batch in self.sql.sql(f"from {relation}").to_arrow_reader(min(rows, 65_536)):
            while there + len(batch) >= rows:
                cut = rows - there
                yield pa.Table.from_batches([*held, batch.slice(0, cut)])
                held, there, batch = [], 0, batch.slice(cut)
            held, there = [*held, batch], there + len(batch)
        if there:
            yield pa.Table.from_batches(held)

    def close(self) -> None:
        self._close()


def _close(sql: duckdb.DuckDBPyConnection, folder: tempfile.TemporaryDirectory[str]) -> None:
    sql.close()
    folder.cleanup()
