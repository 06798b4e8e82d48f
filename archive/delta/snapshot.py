"""Open a Delta snapshot as a pyarrow dataset or a relation of DuckDB.

dataset(snapshot, MEDIA) -> all rows, in the columns of the schema; scan(connection, "media", snapshot, MEDIA) -> a view
recent_rows(snapshot, time column, since) -> the newest rows of a table of events, as dicts

DuckDB starts to read a dataset while it holds Python's lock, so datasets have a file system of Arrow's own
(`read_only_files`). That of delta-rs is written in Python: a thread of Arrow that opens a file waits for Python's lock,
and DuckDB waits for a lock of Arrow's that this thread holds.

Files are described by their partition only. The dataset of delta-rs also lists the minimum and maximum of every column
of every file, in Python: 4 ms per file, 12 s for 3,000 files. A filter on the partition skips files here too; other
filters use the Parquet footers.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from deltalake.fs import DeltaStorageHandler
from pyarrow.dataset import FileSystemDataset, ParquetFileFormat, ParquetFragmentScanOptions
from pyarrow.fs import FileSystem, LocalFileSystem, PyFileSystem, S3FileSystem, SubTreeFileSystem

from archive.defaults import READERS
from archive.delta.sql_literal import file_literal
from archive.delta.tables import Tables, s3_endpoint, storage_options, table_error
from archive.schemas import TABLES
from model_store.storage import is_local, path_of

_COLUMN = "inference_key"
_OF_FILES = ("reading the stream", "exporting a stream", "magic bytes", "Failed to read file", "in Parquet file")
_kept: list[duckdb.DuckDBPyConnection] = []
_making = threading.Lock()
S3_CONNECT_S, S3_REQUEST_S = 10.0, 60.0
_KEY = f"partition.{_COLUMN}"


def open_tables(tables: Tables, *names: str) -> duckdb.DuckDBPyConnection:
    """Return a database with the rows of these tables as relations, none where a table does not exist; times are UTC.

    Raises StorageUnreachable.
    """
    connection = memory_database()
    for name in names:
        connection.register(name, dataset(tables.existing(name), TABLES[name]))
    return connection


def is_of_storage(error: Exception) -> bool:
    """Return whether a library reports a file that is missing, damaged or unreachable, or a full disk."""
    if isinstance(error, duckdb.IOException) or type(error) is duckdb.Error:  # of a damaged footer
        return True
    if isinstance(error, duckdb.InvalidInputException):
        return any(words in str(error) for words in _OF_FILES)
    of_pyarrow = type(error) is OSError and error.errno is None  # such as "AWS Error SERVICE_UNAVAILABLE"
    return of_pyarrow or isinstance(error, DeltaError | pa.ArrowException | FileNotFoundError)


def storage_errors(tables: Tables) -> AbstractContextManager[None]:
    """Raise StorageError instead of a library's error about files of the tables."""
    return _storage_errors(f"read from {tables.url}")


@contextlib.contextmanager
def _storage_errors(attempt: str) -> Iterator[None]:
    try:
        yield
    except (duckdb.Error, DeltaError, pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) or is_of_storage(error):
            raise table_error(attempt, error) from error
        raise


def memory_database() -> duckdb.DuckDBPyConnection:
    """Return a connection with its own temporary relations and variables; times are UTC. Others would be shared.

    All connections of a process share a database in memory: making one takes 20 to 30 ms, a connection 0.1 ms.
    """
    with _making:  # concurrently with the first one, a connection may lack functions
        name = _shared(os.getpid())
    connection = duckdb.connect(name)
    connection.execute("set timezone = 'UTC'")
    return connection


@functools.cache
def _shared(process: int) -> str:
    """Return the name of the database of a process, which a connection keeps; it keeps no bytes of files."""
    name = f":memory:resight-{process}"
    _kept.append(duckdb.connect(name))
    _kept[-1].execute("set global enable_external_file_cache = false")
    return name


@dataclass(frozen=True, slots=True)
class DataFile:
    """A data file of a snapshot, as the log lists it."""

    path: str  # relative to the table; the log quotes it once more
    bytes: int
    rows: int
    partition: str | None


def data_files(table: DeltaTable, partition: str | None = None) -> list[DataFile]:
    """Return the files of the partition, or of all partitions; reads only the snapshot in memory."""
    adds = pa.table(table.get_add_actions(flatten=True))
    columns = table.metadata().partition_columns
    assert columns in ([], [_COLUMN]), "a table has at most one partition column"
    if not columns:
        adds = adds.append_column(_KEY, pa.nulls(len(adds), pa.string()))
    files = adds.select(["path", "size_bytes", "num_records", _KEY])  # without the statistics of each column
    if partition is not None:
        files = files.filter(pc.field(_KEY).cast(pa.string()) == partition)
    values = (column.to_pylist() for column in files.columns)
    return [DataFile(unquote(path), size, rows or 0, key) for path, size, rows, key in zip(*values, strict=True)]


def dataset(table: DeltaTable | None, schema: pa.Schema) -> FileSystemDataset:
    """Return all rows of the snapshot (none without one) in the columns of `schema`; null where a file lacks one."""
    if table is None:
        return FileSystemDataset([], schema, ParquetFileFormat(), LocalFileSystem())
    return _of_files(table, schema, data_files(table))


def added_since(table: DeltaTable, schema: pa.Schema, inference_key: str | None, version: int) -> FileSystemDataset:
    """Return the rows that commits after `version`, up to that of the snapshot, added to one partition or to all.

    Reads one log file per commit, so rows are found even if their file was compacted since. A commit that only moves
    rows, as compaction does, adds none: its log has `dataChange` false.
    Raises OSError if the log or a file is no longer kept (30 and 7 days).
    """
    adds = list(_changes_since(table, "add", inference_key, version))
    files = [DataFile(unquote(a["path"]), a["size"], 0, a["partitionValues"].get(_COLUMN)) for a in adds]
    return _of_files(table, schema, files)


def has_removed_since(table: DeltaTable, inference_key: str | None, version: int) -> bool:
    """Return whether commits after `version` removed or rewrote rows, of one partition or any. Raises OSError."""
    return any(_changes_since(table, "remove", inference_key, version))


def commit_time(table: DeltaTable, version: int) -> datetime | None:
    """Return the time at which a version was committed; None if its log is no longer kept."""
    with contextlib.suppress(OSError):
        for action in _log(_store(table), version):
            if "commitInfo" in action:
                return datetime.fromtimestamp(action["commitInfo"]["timestamp"] / 1e3, UTC)
    return None


def _changes_since(table: DeltaTable, kind: str, inference_key: str | None, version: int) -> Iterator[dict[str, Any]]:
    """Yield the actions of a kind that change rows. A file with an unlisted partition belongs to each of them."""
    with ThreadPoolExecutor(READERS) as readers:
        logs = readers.map(functools.partial(_log, _store(table)), range(version + 1, table.version() + 1))
        for action in itertools.chain.from_iterable(logs):
            change = action.get(kind)
            if change and change["dataChange"]:
                key = (change.get("partitionValues") or {}).get(_COLUMN, inference_key)
                if inference_key in (None, key):
                    yield change


def _store(table: DeltaTable) -> PyFileSystem:
    return PyFileSystem(DeltaStorageHandler(table.table_uri, storage_options(table.table_uri)))


def _log(store: PyFileSystem, version: int) -> list[dict[str, Any]]:
    with store.open_input_file(f"_delta_log/{version:020}.json") as log:
        return [json.loads(line) for line in log.read().splitlines()]


def _of_files(table: DeltaTable, schema: pa.Schema, files: Sequence[DataFile]) -> FileSystemDataset:
    store = read_only_files(table.table_uri)
    parquet = ParquetFileFormat(default_fragment_scan_options=ParquetFragmentScanOptions(pre_buffer=True))
    fragments = [
        parquet.make_fragment(
            file.path,
            store,
            pc.scalar(True) if file.partition is None else pc.field(_COLUMN) == file.partition,
            file_size=file.bytes,
        )
        for file in files
    ]
    return FileSystemDataset(fragments, schema, parquet, store)


def read_only_files(url: str) -> FileSystem:
    """Return the files of the table at a URI of delta-rs, in Arrow's implementation; see the top of this file."""
    if is_local(url):
        return SubTreeFileSystem(path_of(url), LocalFileSystem())
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION", "")
    return SubTreeFileSystem(unquote(url.removeprefix("s3://")), _s3(s3_endpoint(), region))


@functools.lru_cache(maxsize=8)
def _s3(endpoint: str, region: str) -> S3FileSystem:
    """Return a client of S3, which keeps its connections. `endpoint` is empty for Amazon's.

    If `region` is empty, that of the profile is used, or for another endpoint any.
    """
    region = region or ("us-east-1" if endpoint else "")
    timeouts_s = {"connect_timeout": S3_CONNECT_S, "request_timeout": S3_REQUEST_S}
    return S3FileSystem(endpoint_override=endpoint or None, region=region or None, **timeouts_s)


def partition_keys(table: DeltaTable | None) -> list[str]:
    """Return the inference keys of the files of a partitioned table, sorted. Opens no file."""
    if table is None:
        return []
    return sorted(set(pa.table(table.get_add_actions(flatten=True))[_KEY].to_pylist()))


def scan(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    table: DeltaTable | None,
    schema: pa.Schema,
    inference_key: str | None = None,
) -> None:
    """Create or replace the view `name`; with `inference_key`, only of that partition and without that column.

    The view is empty if the table is None. Columns that a file or the whole table lacks are null. DuckDB reads local
    files itself; pyarrow reads those on s3:// and below a folder with "=", with the same rows. The connection must not
    outlive Delta's retention of the files. Raises StorageUnreachable if a file is lost or damaged.
    """
    columns = [field for field in schema.names if field != "inference_key" or inference_key is None]
    files = data_files(table, inference_key) if table is not None else []
    empty = schema.empty_table().select(columns)
    if table is None or not files:
        connection.execute(f"drop view if exists {name}")  # else `register` refuses the name
        connection.register(name, empty)
        return
    folder = path_of(table.table_uri)
    if is_local(table.table_uri) and "=" not in folder:  # DuckDB takes each folder "column=value" for that column
        paths = ", ".join(file_literal(f"{folder}/{file.path}") for file in files)
        partitions = "false" if inference_key is not None else str("inference_key" in schema.names)
        options = f"hive_partitioning = {partitions}, hive_types_autocast = false, union_by_name = true"
        rows = f"from read_parquet([{paths}], {options})"
    else:
        chosen = [("inference_key", "=", inference_key)] if inference_key is not None else None
        store = read_only_files(table.table_uri)
        files_of_key = table.to_pyarrow_dataset(filesystem=store, file_pruning_predicate=chosen)
        connection.register(f"{name}_files", files_of_key)
        rows = f"from {name}_files"
    if set(columns) - {field.name for field in table.schema().fields}:
        connection.register(f"{name}_columns", empty)
        rows = f"{rows} union all by name from {name}_columns"
    with _storage_errors(f"read {folder}"):
        connection.execute(f"create or replace temp view {name} as {rows}")


def recent_rows(
    table: DeltaTable | None, moment: str, since: datetime, columns: Sequence[str], **same: str
) -> list[dict[str, Any]]:
    """Return rows with a time in column `moment` after `since` (with a time zone) and the values of `same`.

    Without a table there are none. Columns that the table lacks are left out. The statistics in the Delta log select
    the files, so older files are not opened.
    """
    if table is None:
        return []
    newest = table.to_pyarrow_dataset(file_pruning_predicate=[(moment, ">", since)])
    condition = ds.field(moment) > since
    for column, value in same.items():
        condition &= ds.field(column) == value
    existing = [column for column in columns if column in newest.schema.names]
    return list(newest.to_table(existing, filter=condition).to_pylist())
