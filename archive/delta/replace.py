"""Replace many rows of a table in one commit that rewrites each affected file once.

keys --find the files with these keys--> groups of files --SQL: new rows--> new files --one commit: remove, add--> table
The time is linear in the rows of those files; `Tables.append(replace=)` rewrites them for every few thousand keys.
Memory does not grow, because a group has at most the rows of one large file.
The commit carries the writer's transaction and MAINTENANCE: if two touch the same rows, one is rejected. It then
searches again, and rewrites only if other files have its keys. A process killed before the commit leaves the table
unchanged, and unreferenced files to `vacuum`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import duckdb
import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from deltalake.transaction import AddAction, RemoveAction
from pyarrow.dataset import FileSystemDataset

from archive.delta.compact import parts_of
from archive.delta.rewrite import rows_of_files, write_files
from archive.delta.snapshot import DataFile, data_files
from archive.delta.tables import KEYS_PER_COMMIT, Tables
from model_store.errors import StorageUnreachable

MANY_ROWS = 4 * KEYS_PER_COMMIT
"""Number of rows from which this is faster: to rewrite a million rows takes delta-rs 2 s per commit, and this 8 s."""
_FILE = "__filename"


@dataclass(frozen=True)
class Replacement:
    """Keys to replace and a query for the new rows.

    `keys` is a table of `sql` with the columns `key`, without nulls and duplicates. `state` is a query for the new rows
    of some files. It reads `affected` (all rows of these files, to be scanned once) and `due` (the rows of `keys` that
    match them). Keys without a row in the table come with the last files.
    """

    sql: duckdb.DuckDBPyConnection
    keys: str
    key: tuple[str, ...]
    state: str


def replace_many(tables: Tables, name: str, writer: str, replacement: Replacement) -> DeltaTable:
    """Replace rows of a table without partitions; return the new snapshot. `writer` is as in `Tables.append`.

    Raises TableConflict, StorageUnreachable, StorageUnsafe, and then leaves the table unchanged.
    """
    return tables.swap(name, _Swap(name, replacement), writer)


class _Swap:
    """Actions to commit on a snapshot. Files never change, so each is searched only once."""

    def __init__(self, name: str, replacement: Replacement) -> None:
        self._name, self._replacement, self._sql = name, replacement, replacement.sql
        self._searched: set[str] = set()
        self._written_for: set[str] | None = None
        self._adds: list[AddAction] = []
        self._sql.execute("create or replace table matches (file varchar, key_row bigint)")

    def __call__(self, table: DeltaTable) -> Sequence[AddAction | RemoveAction]:
        assert not table.metadata().partition_columns, "cannot merge files of several partitions"
        files = {file.path: file for file in data_files(table)}
        if self._adds and all(add.path in files for add in self._adds):
            return []  # it was committed, and the acknowledgement was lost
        try:
            self._search(table, files.keys() - self._searched)
            affected = [files[path] for path in self._matching_files() if path in files]
            if {file.path for file in affected} != self._written_for:
                self._adds = self._write(table, affected)
                self._written_for = {file.path for file in affected}
        except (OSError, DeltaError, duckdb.Error, pa.ArrowException) as error:
            raise StorageUnreachable(
                f"cannot replace rows of {table.table_uri}: {error}; nothing was changed"
            ) from error
        now_ms = int(time.time() * 1000)
        removes = [RemoveAction(f.path, True, now_ms, f.bytes, {}) for f in affected]
        return [*removes, *self._adds]

    def _search(self, table: DeltaTable, paths: set[str]) -> None:
        """Record which of these files have which of the keys."""
        if not paths:
            return
        keys, key = self._replacement.keys, self._replacement.key
        rows = _CountedRows(rows_of_files(table, paths), [*key, _FILE])
        self._sql.register("searched", rows.reader)
        same = " and ".join(f"searched.{column} = k.{column}" for column in key)
        matches = f"select {_FILE}, k.rowid from searched join {keys} k on {same}"
        self._sql.execute(f"insert into matches {matches}")
        self._sql.unregister("searched")
        self._searched |= paths

    def _matching_files(self) -> list[str]:
        """Return the files with any of the keys, in the order of the keys."""
        order = "select file from matches group by file order by min(key_row), file"
        return [path for (path,) in self._sql.execute(order).fetchall()]

    def _write(self, table: DeltaTable, affected: list[DataFile]) -> list[AddAction]:
        """Write the new files, by groups; without affected files there is one group, of new keys."""
        groups = _groups(affected) or [[]]
        adds: list[AddAction] = []
        for group in groups:
            paths = [file.path for file in group]
            self._select(paths, [file.path for file in affected] if group is groups[-1] else None)
            adds += self._write_group(table, group)
        return adds

    def _select(self, paths: list[str], all_paths: list[str] | None) -> None:
        """Create table `due`: the keys of these files, and with `all_paths` also those of no affected file."""
        condition = "rowid in (select key_row from matches where file in (select unnest($paths)))"
        values: dict[str, list[str]] = {"paths": paths}
        if all_paths is not None:
            values["all_paths"] = all_paths
            condition += " or rowid not in (select key_row from matches where file in (select unnest($all_paths)))"
        self._sql.execute(f"create or replace table due as from {self._replacement.keys} where {condition}", values)

    def _write_group(self, table: DeltaTable, group: list[DataFile]) -> list[AddAction]:
        stored = rows_of_files(table, {file.path for file in group})
        rows = _CountedRows(stored, stored.schema.names)
        self._sql.register("affected", rows.reader)
        state, place, parts = self._replacement.state, ("", None), parts_of(group)
        adds = write_files(self._sql, state, table, self._name, place, parts, data_change=True)
        self._sql.unregister("affected")
        listed = sum(file.rows for file in group)
        if rows.count != listed and all(file.rows for file in group):
            raise OSError(f"{len(group)} files hold {rows.count} rows, but the log lists {listed}")
        return adds


def _groups(files: Sequence[DataFile]) -> list[list[DataFile]]:
    """Group files in their order, up to the rows of one large file; a larger file is a group by itself."""
    groups: list[list[DataFile]] = []
    for file in files:
        if groups and parts_of([*groups[-1], file]) == 1:
            groups[-1].append(file)
        else:
            groups.append([file])
    return groups


class _CountedRows:
    """Stream of rows of files that reads one file ahead and counts the rows in `count`."""

    def __init__(self, rows: FileSystemDataset, columns: list[str]) -> None:
        batches = rows.scanner(columns=columns, batch_size=32_768, batch_readahead=2, fragment_readahead=1).to_reader()
        self.count = 0
        self.reader = pa.RecordBatchReader.from_batches(batches.schema, self._count(batches))

    def _count(self, batches: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            self.count += len(batch)
            yield batch
