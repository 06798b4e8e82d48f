"""Write the rows of some files of a table, sorted, to a given number of new files that are not yet committed.

(snapshot, paths) --scratch: sort--> Parquet files in the same folder, and the actions to commit them
footer --file_stats--> the statistics of a file for the Delta log, as JSON
Memory does not grow with the number of rows.
"""

from __future__ import annotations

import json
import math
import posixpath
import time
import uuid
from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
import pyarrow as pa
from deltalake import DeltaTable
from deltalake.fs import DeltaStorageHandler
from deltalake.transaction import AddAction
from pyarrow.dataset import FileSystemDataset
from pyarrow.fs import FileSystem, PyFileSystem
from pyarrow.parquet import FileMetaData, ParquetWriter

from archive.delta.scratch_db import scratch, windows
from archive.delta.snapshot import dataset
from archive.delta.tables import storage_options

ROW_GROUP_ROWS = 65_536
_ORDER = {
    "media": ("source_root", "path"),
    "results": ("media_sha256",),
    "snips": ("media_sha256",),
    "classifications": ("media_sha256", "rank"),
    "embeddings": ("media_sha256", "rank"),
    "assertions": ("media_sha256",),
    "runs": ("run_id", "event"),
    "decisions": ("decided_at",),
    "exports": ("exported_at",),
}
"""Sort columns of each table: rows that are read together are stored together, so that file statistics can skip files.
"""
_MS = timedelta(milliseconds=1)


def rewrite(table: DeltaTable, name: str, paths: Collection[str], partition: str | None) -> list[AddAction]:
    """Rewrite files of one partition as one file; `paths` are relative to the table. New columns are null.

    The actions have `data_change` false, because the rows are the same. Raises OSError, DeltaError, duckdb.Error.
    """
    with scratch("compact") as sql:
        sql.register("small", rows_of_files(table, paths))
        place = posixpath.dirname(min(paths)), partition
        return write_files(sql, "from small", table, name, place, 1, data_change=False)


def write_files(
    sql: duckdb.DuckDBPyConnection,
    rows: str,
    table: DeltaTable,
    name: str,
    place: tuple[str, str | None],
    parts: int,
    data_change: bool,
) -> list[AddAction]:
    """Write the rows of a query, sorted, as new files at `place`: a folder inside the table, and its partition.

    Creates and drops a table `sorted`. Raises the same errors as `rewrite`.
    """
    schema = pa.schema(table.schema().to_arrow())
    columns = table.metadata().partition_columns
    inside = pa.schema([field for field in schema if field.name not in columns])
    sorting = [column for column in _ORDER.get(name, ()) if column in inside.names]
    order = f"order by {_quoted(sorting)}" if sorting else ""
    store = PyFileSystem(DeltaStorageHandler(table.table_uri, storage_options(table.table_uri)))
    folder, partition = place
    adds: list[AddAction] = []
    sql.execute(f"create or replace table sorted as select {_quoted(inside.names)} from ({rows}) {order}")
    for share in _shares(sql, parts):
        file = _NewFile(store, folder, inside)
        for rows_part in share:
            file.write(rows_part.cast(inside))
        adds.append(file.close(dict.fromkeys(columns, partition), data_change))
    sql.execute("drop table sorted")
    return adds


def _shares(sql: duckdb.DuckDBPyConnection, parts: int) -> Iterator[Iterator[pa.Table]]:
    """Yield the table `sorted` in `parts` equal shares, each in small batches."""
    total = int(sql.execute("select count(*) from sorted").fetchall()[0][0])
    share = max(1, -(-total // parts))
    for start in range(0, total, share):
        yield windows(sql, "sorted", ROW_GROUP_ROWS, start, min(total, start + share))


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def rows_of_files(table: DeltaTable, paths: Collection[str]) -> FileSystemDataset:
    """Return the rows of some files in the columns of the table; null where a file lacks a column."""
    schema = pa.schema(table.schema().to_arrow())
    all_files = dataset(table, schema)
    fragments = [part for part in all_files.get_fragments() if part.path in paths]
    return FileSystemDataset(fragments, schema, all_files.format, all_files.filesystem)


class _NewFile:
    """Parquet file with a unique name, written once."""

    def __init__(self, store: FileSystem, folder: str, schema: pa.Schema) -> None:
        self._path = posixpath.join(folder, f"part-00000-{uuid.uuid4()}-c000.zstd.parquet")
        self._schema = schema
        self._footer: list[FileMetaData] = []
        self._stream = store.open_output_stream(self._path)
        self._writer = ParquetWriter(self._stream, schema, compression="zstd", metadata_collector=self._footer)

    def write(self, rows: pa.Table) -> None:
        self._writer.write_table(rows, row_group_size=ROW_GROUP_ROWS)

    def close(self, partition: dict[str, str | None], data_change: bool) -> AddAction:
        self._writer.close()
        size = self._stream.tell()
        self._stream.close()
        return AddAction(
            path=self._path,  # delta-rs quotes it for the log
            size=size,
            partition_values=partition,
            modification_time=int(time.time() * 1000),
            data_change=data_change,
            stats=file_stats(self._footer[0], self._schema),
        )


def file_stats(footer: FileMetaData, schema: pa.Schema) -> str:
    """Return the `stats` of an add action: only `numRecords` if a value is not finite, or over 4 KB long.

    Either all columns outside lists have minimum and maximum values, or none has: if only some had them, readers based
    on pyarrow would silently skip rows.
    """
    minima: dict[str, Any] = {}
    maxima: dict[str, Any] = {}
    nulls: dict[str, Any] = {}
    leaves = list(_leaves(schema))
    indices = {footer.schema.column(i).path: i for i in range(footer.num_columns)}
    for leaf in leaves:
        column = _of_column(footer, indices[".".join(leaf)])
        if column is None:
            return json.dumps({"numRecords": footer.num_rows})
        low, high, null_count = column
        _put(nulls, leaf, null_count)
        if null_count < footer.num_rows:
            _put(minima, leaf, _json(low, -1))
            _put(maxima, leaf, _json(high, 1))
    return json.dumps({"numRecords": footer.num_rows, "minValues": minima, "maxValues": maxima, "nullCount": nulls})


def _leaves(fields: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the paths of the columns outside lists."""
    for field in fields:
        if pa.types.is_struct(field.type):
            yield from _leaves(field.type, (*above, field.name))
        elif not pa.types.is_nested(field.type):
            yield (*above, field.name)


def _of_column(footer: FileMetaData, column: int) -> tuple[Any, Any, int] | None:
    """Return minimum, maximum (None if all values are null) and number of nulls; None without usable statistics."""
    lows: list[Any] = []
    highs: list[Any] = []
    nulls = 0
    for group in range(footer.num_row_groups):
        chunk = footer.row_group(group).column(column)
        stats = chunk.statistics
        if stats is None or not stats.has_null_count:
            return None
        nulls += stats.null_count
        if stats.has_min_max:
            lows.append(stats.min)
            highs.append(stats.max)
        elif stats.null_count < chunk.num_values:
            return None
    if not lows:
        return None, None, nulls
    low, high = min(lows), max(highs)
    finite = all(math.isfinite(v) for v in (low, high) if isinstance(v, float))
    return (low, high, nulls) if finite else None


def _json(value: Any, side: int) -> Any:
    """Return the JSON value; times are rounded to milliseconds, as in Delta: minimum down, maximum up."""
    if not isinstance(value, datetime):
        return value
    spare = timedelta(microseconds=value.microsecond % 1000)
    whole = value - spare + (_MS if spare and side > 0 else timedelta())
    return whole.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _put(tree: dict[str, Any], leaf: tuple[str, ...], value: Any) -> None:
    for name in leaf[:-1]:
        tree = tree.setdefault(name, {})
    tree[leaf[-1]] = value
