"""Many rows of a table replaced at once: each file that holds one is written anew once, in one commit.

keys --which files hold one?--> groups of files --SQL: what shall stand in their place--> new files
--one commit: remove, add--> Linear in the rows of those files, where `Tables.append(replace=)` writes them anew for
every few thousand keys. Memory does not grow: a group is what one large file holds.
The commit carries the writer's transaction and MAINTENANCE, so of two that touch the same rows one is refused;
it looks again, and writes anew only when the files that hold its keys are others now. Killed before the commit,
the table is as it was, and files nobody knows are left to `vacuum`.
"""

# pyright: reportMissingTypeStubs=false

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

from archive.compact import DataFile, data_files, parts_of
from archive.rewrite import rows_of_files, write_files
from archive.tables import KEYS_PER_COMMIT, Tables
from model_store.errors import StorageUnreachable

MANY_ROWS = 4 * KEYS_PER_COMMIT
"""From here on this way is the cheaper one: writing a million rows anew takes delta-rs 2 s a commit, and this 8 s."""
_FILE = "__filename"


@dataclass(frozen=True)
class Replacement:
    """`keys`: a table of `sql` that has the columns `key`, without nulls, each key once.

    `state`: a query for the rows that shall stand in the place of those of some files. It is over `affected`, all
    rows of these files, to be read once, and `due`, the rows of `keys` that are about them; those that are about
    no row of the table come with the last files.
    """

    sql: duckdb.DuckDBPyConnection
    keys: str
    key: tuple[str, ...]
    state: str


def replace_many(tables: Tables, name: str, writer: str, what: Replacement) -> DeltaTable:
    """The snapshot with the new rows. For a table without partitions; `writer` as in `Tables.append`.

    Raises TableConflict, StorageUnreachable, StorageUnsafe; nothing has changed then.
    """
    return tables.swap(name, writer, _Swap(name, what))


class _Swap:
    """What is to be committed on a snapshot. Files never change, so none is looked at twice."""

    def __init__(self, name: str, what: Replacement) -> None:
        self._name, self._what, self._sql = name, what, what.sql
        self._looked: set[str] = set()
        self._written_for: set[str] | None = None
        self._adds: list[AddAction] = []
        self._sql.execute("create or replace table places (file varchar, key_row bigint)")

    def __call__(self, table: DeltaTable) -> Sequence[AddAction | RemoveAction]:
        assert not table.metadata().partition_columns, "files of several partitions cannot be one"
        files = {file.path: file for file in data_files(table)}
        if self._adds and all(add.path in files for add in self._adds):
            return []  # it was committed, and the answer was lost
        try:
            self._look(table, files.keys() - self._looked)
            affected = [files[path] for path in self._holding() if path in files]
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

    def _look(self, table: DeltaTable, paths: set[str]) -> None:
        """Which of the keys these files hold."""
        if not paths:
            return
        what = self._what
        rows = _Counted(rows_of_files(table, paths), [*what.key, _FILE])
        self._sql.register("looked_at", rows.reader)
        same = " and ".join(f"looked_at.{column} = k.{column}" for column in what.key)
        found = f"select {_FILE}, k.rowid from looked_at join {what.keys} k on {same}"
        self._sql.execute(f"insert into places {found}")
        self._sql.unregister("looked_at")
        self._looked |= paths

    def _holding(self) -> list[str]:
        """Files that hold one of the keys, in the order of the keys."""
        order = "select file from places group by file order by min(key_row), file"
        return [path for (path,) in self._sql.execute(order).fetchall()]

    def _write(self, table: DeltaTable, affected: list[DataFile]) -> list[AddAction]:
        """No files at all are a group too: of keys that the table does not have."""
        groups = _groups(affected) or [[]]
        adds: list[AddAction] = []
        for group in groups:
            paths = [file.path for file in group]
            self._choose(paths, [file.path for file in affected] if group is groups[-1] else None)
            adds += self._write_group(table, group)
        return adds

    def _choose(self, paths: list[str], all_paths: list[str] | None) -> None:
        """Table `due`: keys in these files; for the last of them also those in none at all."""
        chosen = "rowid in (select key_row from places where file in (select unnest($paths)))"
        given: dict[str, list[str]] = {"paths": paths}
        if all_paths is not None:
            given["all_paths"] = all_paths
            chosen += " or rowid not in (select key_row from places where file in (select unnest($all_paths)))"
        self._sql.execute(
            f"create or replace table due as from {self._what.keys} where {chosen}", given
        )

    def _write_group(self, table: DeltaTable, group: list[DataFile]) -> list[AddAction]:
        known = rows_of_files(table, {file.path for file in group})
        rows = _Counted(known, known.schema.names)
        self._sql.register("affected", rows.reader)
        state, place, parts = self._what.state, ("", None), parts_of(group)
        adds = write_files(self._sql, state, table, self._name, place, parts, data_change=True)
        self._sql.unregister("affected")
        wanted = sum(file.rows for file in group)
        if rows.count != wanted and all(file.rows for file in group):
            raise OSError(f"{len(group)} files hold {rows.count} rows, and the log says {wanted}")
        return adds


def _groups(files: Sequence[DataFile]) -> list[list[DataFile]]:
    """In their order, each as much as one file may hold; a larger file is alone."""
    groups: list[list[DataFile]] = []
    for file in files:
        if groups and parts_of([*groups[-1], file]) == 1:
            groups[-1].append(file)
        else:
            groups.append([file])
    return groups


class _Counted:
    """Rows of files as a stream that reads little ahead; `count` is how many have passed."""

    def __init__(self, rows: FileSystemDataset, columns: list[str]) -> None:
        batches = rows.scanner(
            columns=columns, batch_size=32_768, batch_readahead=2, fragment_readahead=1
        ).to_reader()
        self.count = 0
        self.reader = pa.RecordBatchReader.from_batches(batches.schema, self._count(batches))

    def _count(self, batches: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            self.count += len(batch)
            yield batch
