"""Rows of some files of a table, sorted, in a given number of new files of which no snapshot knows yet.

(snapshot, paths) --scratch: sort--> Parquet files beside them, and what a commit needs to add them
Memory does not grow with the number of rows.
"""

from __future__ import annotations

import posixpath
import time
import uuid
from collections.abc import Collection, Iterator, Sequence

import duckdb
import pyarrow as pa
from deltalake import DeltaTable
from deltalake.fs import DeltaStorageHandler
from deltalake.transaction import AddAction
from pyarrow.dataset import FileSystemDataset
from pyarrow.fs import FileSystem, PyFileSystem
from pyarrow.parquet import FileMetaData, ParquetWriter

from archive.dataset import dataset
from archive.file_stats import file_stats
from archive.scratch import scratch, windows
from archive.tables import storage_options

ROW_GROUP_ROWS = 65_536
_ORDER = {
    "media": ("source_root", "path"),
    "results": ("media_sha256",),
    "snips": ("media_sha256",),
    "classifications": ("media_sha256", "rank"),
    "assertions": ("media_sha256",),
    "runs": ("run_id", "event"),
    "decisions": ("decided_at",),
    "exports": ("exported_at",),
}
"""What is asked for together lies together; the least and greatest value of a file say what it can hold."""


def rewrite(
    table: DeltaTable, name: str, paths: Collection[str], partition: str | None, parts: int
) -> list[AddAction]:
    """`paths` are of one partition, in the folder of the table. Columns that came later are null.

    The actions say `data_change` false: the rows are the same. Raises OSError, DeltaError, duckdb.Error.
    """
    with scratch("compact") as sql:
        sql.register("small", rows_of_files(table, paths))
        place = posixpath.dirname(min(paths)), partition
        return write_files(sql, "from small", table, name, place, parts, data_change=False)


def write_files(
    sql: duckdb.DuckDBPyConnection,
    rows: str,
    table: DeltaTable,
    name: str,
    place: tuple[str, str | None],
    parts: int,
    data_change: bool,
) -> list[AddAction]:
    """The rows of a query, sorted, as new files at `place`: a folder in that of the table, and its partition.

    Makes a relation `sorted`, and drops it. Raises as `rewrite`.
    """
    schema = pa.schema(table.schema().to_arrow())
    columns = table.metadata().partition_columns
    inside = pa.schema([field for field in schema if field.name not in columns])
    sorting = [column for column in _ORDER.get(name, ()) if column in inside.names]
    order = f"order by {_quoted(sorting)}" if sorting else ""
    store = PyFileSystem(DeltaStorageHandler(table.table_uri, storage_options(table.table_uri)))
    folder, partition = place
    adds: list[AddAction] = []
    sql.execute(
        f"create or replace table sorted as select {_quoted(inside.names)} from ({rows}) {order}"
    )
    for share in _shares(sql, parts):
        written = _NewFile(store, folder, inside)
        for some in share:
            written.write(some.cast(inside))
        adds.append(written.close(dict.fromkeys(columns, partition), data_change))
    sql.execute("drop table sorted")
    return adds


def _shares(sql: duckdb.DuckDBPyConnection, parts: int) -> Iterator[Iterator[pa.Table]]:
    """The table `sorted` in so many equal shares, each a few rows at a time."""
    total = int(sql.sql("select count(*) from sorted").fetchall()[0][0])
    share = max(1, -(-total // parts))
    for start in range(0, total, share):
        yield windows(sql, "sorted", ROW_GROUP_ROWS, start, min(total, start + share))


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def rows_of_files(table: DeltaTable, paths: Collection[str]) -> FileSystemDataset:
    """In the columns of the table; null where a file is older than a column."""
    schema = pa.schema(table.schema().to_arrow())
    everything = dataset(table, schema)
    fragments = [part for part in everything.get_fragments() if part.path in paths]
    return FileSystemDataset(fragments, schema, everything.format, everything.filesystem)


class _NewFile:
    """Written once, under a name nobody else has."""

    def __init__(self, store: FileSystem, folder: str, schema: pa.Schema) -> None:
        self._path = posixpath.join(folder, f"part-00000-{uuid.uuid4()}-c000.zstd.parquet")
        self._schema = schema
        self._footer: list[FileMetaData] = []
        self._stream = store.open_output_stream(self._path)
        self._writer = ParquetWriter(
            self._stream, schema, compression="zstd", metadata_collector=self._footer
        )

    def write(self, rows: pa.Table) -> None:
        self._writer.write_table(rows, row_group_size=ROW_GROUP_ROWS)

    def close(self, partition: dict[str, str | None], data_change: bool) -> AddAction:
        self._writer.close()
        size = self._stream.tell()
        self._stream.close()
        return AddAction(
            path=self._path,  # delta-rs quotes it once more for the log
            size=size,
            partition_values=partition,
            modification_time=int(time.time() * 1000),
            data_change=data_change,
            stats=file_stats(self._footer[0], self._schema),
        )
