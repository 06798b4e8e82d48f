"""Open the Delta tables under one local path or s3:// URL, and append to them exactly once.

Tables(url).append(name, rows, writer, missing) commits with a Delta app transaction one above that of the snapshot. A
writer with a stale snapshot is rejected; it then reloads and keeps only the rows that are still missing. A lost
acknowledgement is handled in the same way. A commit that removes a file from a table also carries MAINTENANCE.
(Never use Dataset.write_delta, optimize.compact or Ray checkpoints here: docs/decisions/0006.)
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, RemoveAction

from archive.delta.sql_literal import literal
from archive.schemas import PARTITIONS, TABLES
from model_store.errors import BadRequest, StorageError, StorageUnreachable, TableConflict
from model_store.storage import is_local, require_create
from model_store.storage_errors import in_one_line, is_denied, is_full, storage_error

COMMIT_ATTEMPTS, LOST_RACES = 20, 100
"""A writer raises TableConflict after this number of failures, or of races lost to other writers.

It may lose more often than fail, because it retries sooner and each lost race is the progress of another writer.
"""
MAINTENANCE = "resight:maintenance"
"""App transaction of every commit that removes files from a table: of two concurrent ones, one is rejected.

Without it, two writers could both replace the same file, and its rows would be duplicated.
"""
KEYS_PER_COMMIT = 5_000
"""Keys of one replacement. delta-rs processes their list recursively; 8 MB of stack overflow at 20,000 to 50,000 keys.
"""
FRESH_EVERY = 25
"""Average number of commits on one snapshot object before it is reopened; each makes the next one 0.35 ms slower."""
_NOT_IN_PATHS = re.compile(r"[\[\]|^\\\x00-\x1f\x7f]|%[0-9A-Fa-f]{2}")
_NOT_IN_KEYS = re.compile(rf"{_NOT_IN_PATHS.pattern}|[#?]|::")
_WORDS = "[ ] | ^ \\, control characters, % before two hex digits"
Missing = Callable[[DeltaTable, pa.Table], pa.Table]
T = TypeVar("T")
Swap = Callable[[DeltaTable], Sequence[AddAction | RemoveAction]]


class CommitRetries:
    """Wait after each rejected commit to `table`, longer each time."""

    def __init__(self, table: str) -> None:
        self._table, self._tries = table, Counter[bool]()

    def wait(self, error: Exception) -> None:
        """Raise TableConflict after COMMIT_ATTEMPTS failures or LOST_RACES lost races.

        Raises StorageFull and StorageUnreachable at once, if the disk is full or cannot be written to.
        """
        if is_full(error) or is_denied(error):
            raise storage_error(f"write to {self._table}", error) from error
        lost = isinstance(error, CommitFailedError)
        self._tries[lost] += 1
        if self._tries[lost] >= (LOST_RACES if lost else COMMIT_ATTEMPTS):
            message = f"{self._table}: {self._tries.total()} commits rejected, try again later: {in_one_line(error)}"
            raise TableConflict(message) from error
        max_s = 1.0 if lost else 5.0
        time.sleep(random.uniform(0.5, 1.5) * min(max_s, 0.05 * 2 ** (self._tries[lost] - 1)))


class Tables:
    """Set of tables below a URL. Every DeltaTable that it returns is a snapshot."""

    published_upto: int | None = None
    """Serial of the newest publication to use; None: no limit."""

    def __init__(self, url: str) -> None:
        """Set the URL. Raises BadRequest for a path that delta-rs cannot open."""
        _require_openable(url)
        self.url = url
        self._options = storage_options(url)
        self._raced: set[tuple[str, str]] = set()  # (table, writer) pairs that have lost a race

    def snapshot(self, name: str) -> DeltaTable:
        """Return the newest snapshot; create an empty table if there is none.

        Raises StorageUnreachable, StorageFull, StorageUnsafe.
        """
        table = self.existing(name)
        if table is not None:
            return table
        require_create(self.url)
        try:
            if is_local(self.url):
                Path(self.url).mkdir(parents=True, exist_ok=True)
            DeltaTable.create(
                self._path(name),
                schema=TABLES[name],  # type: ignore[arg-type]  # any Arrow schema is accepted
                mode="ignore",
                partition_by=PARTITIONS.get(name),
                storage_options=self._options,
            )
            return DeltaTable(self._path(name), storage_options=self._options)
        except (OSError, DeltaError) as error:
            table = self.existing(name)  # created concurrently by another process
            if table is not None:
                return table
            raise storage_error(f"create table {self._path(name)}", error) from error

    def nothing_here(self) -> StorageUnreachable:
        """Return the error for a command that needs tables where there are none."""
        return StorageUnreachable(
            f"no tables in {self.url}: begin with 'resight ingest FOLDER', which creates them. If they were created "
            "before, is it mounted?"
        )

    def existing(self, name: str) -> DeltaTable | None:
        """Return the newest snapshot, or None. Raises StorageUnreachable."""
        try:
            return DeltaTable(self._path(name), storage_options=self._options)
        except TableNotFoundError:
            return None
        except (OSError, DeltaError) as error:
            raise table_error(f"open table {self._path(name)}", error) from error

    def append(
        self,
        name: str,
        rows: pa.Table,
        writer: str,
        missing: Missing,
        base: DeltaTable | None = None,
        replace: Sequence[str] = (),
    ) -> DeltaTable:
        """Commit the rows that are still missing; return the snapshot that has all of them.

        `missing(snapshot, rows)` returns the rows that the snapshot lacks; it is called again after every lost race.
        With `base`, the caller guarantees that this snapshot lacks all `rows`, and the first attempt does not check.
        The returned snapshot is the next `base`: either it only gained rows of this writer, or a race was lost, after
        which every attempt checks.
        `replace` names key columns: the same commit deletes the stored rows with these keys. There is one commit per
        KEYS_PER_COMMIT rows, which rewrites the files of its rows; for many rows `archive/delta/replace.py` is cheaper.
        Raises TableConflict after COMMIT_ATTEMPTS failures or LOST_RACES lost races, StorageFull, StorageUnsafe.
        """
        require_create(self.url)
        starts = range(0, len(rows), KEYS_PER_COMMIT)
        parts = [rows.slice(start, KEYS_PER_COMMIT) for start in starts] if replace else [rows]
        table = base
        for part in parts:
            table = self._append(name, part, writer, missing, table if base else None, replace)
        return table or self.snapshot(name)

    def commit(self, name: str, attempt: Callable[[DeltaTable], T]) -> T:
        """Return `attempt(newest snapshot)`, called again after each commit of it that is rejected.

        Raises TableConflict as `append`, StorageUnreachable, StorageUnsafe.
        """
        retries = CommitRetries(self._path(name))
        while True:
            table = self.snapshot(name)
            try:
                return attempt(table)
            except (CommitFailedError, DeltaError, OSError) as error:
                retries.wait(error)

    def swap(self, name: str, actions: Swap, *writers: str) -> DeltaTable:
        """Commit `actions(snapshot)`, files to remove and to add, as these writers; return the new snapshot.

        `actions` is called again after every lost race, and returns nothing if a commit succeeded without an
        acknowledgement. Its own StorageErrors are not retried. Raises TableConflict, StorageUnreachable, StorageUnsafe.
        """
        require_create(self.url)
        self._raced.update((name, writer) for writer in writers)  # later appends must check these snapshots

        def attempt(table: DeltaTable) -> DeltaTable:
            due = actions(table)
            if not due:
                return table
            table.create_write_transaction(
                list(due),
                "append",
                table.schema(),
                table.metadata().partition_columns,
                commit_properties=properties_of(table, *writers, MAINTENANCE),
            )
            return self.snapshot(name)

        return self.commit(name, attempt)

    def _append(
        self, name: str, rows: pa.Table, writer: str, missing: Missing, base: DeltaTable | None, replace: Sequence[str]
    ) -> DeltaTable:
        table = base
        todo = None if (name, writer) in self._raced else rows
        retries = CommitRetries(self._path(name))
        while True:
            try:
                if table is None or todo is None:
                    table = self.snapshot(name)
                    todo = missing(table, rows)
                if not len(todo):
                    return table
                _commit(table, todo, writer, replace)
                return self._fresh(table)  # delta-rs has moved it to the version just written
            except (CommitFailedError, DeltaError, OSError, StorageUnreachable) as error:
                todo = None
                self._raced.add((name, writer))
                retries.wait(error)

    def _fresh(self, table: DeltaTable) -> DeltaTable:
        """Return the same version, reopened once in FRESH_EVERY calls."""
        if random.randrange(FRESH_EVERY):
            return table
        with contextlib.suppress(OSError, DeltaError):
            return DeltaTable(table.table_uri, table.version(), storage_options=self._options)
        return table

    def _path(self, name: str) -> str:
        return f"{self.url}/{name}"


def table_error(attempt: str, error: Exception) -> StorageError:
    """Return the error of an attempt that failed; for a lost or damaged file of the tables, with the way out."""
    way_out = "'resight doctor --digests' lists lost and damaged files of the tables, to restore from the backup"
    return storage_error(attempt, error, way_out)


def _require_openable(url: str) -> None:
    """Raise BadRequest for characters at which delta-rs panics, which it replaces, or which end an S3 key."""
    invalid = (_NOT_IN_PATHS if is_local(url) else _NOT_IN_KEYS).search(url)
    if invalid:
        raise BadRequest(
            f"the tables cannot be in {url!r}: Delta Lake's library cannot open a path with {invalid[0]!r}. Rename the "
            f"folder, or set RESIGHT_TABLES to one without {_WORDS if is_local(url) else _WORDS + ' # ? ::'}"
        )


def storage_options(url: str) -> dict[str, str]:
    """Return the options that delta-rs needs in addition to the AWS_* variables, which it reads itself."""
    endpoint = s3_endpoint()
    if is_local(url) or not endpoint:
        return {}
    plain = {"AWS_ALLOW_HTTP": "true"} if endpoint.startswith("http://") else {}
    return plain | {"AWS_ENDPOINT_URL": endpoint}


def s3_endpoint() -> str:
    """Return the URL of an S3 server other than Amazon's, or an empty text.

    Of the two variables for it, the one for S3 has priority, as in s3fs.
    """
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", "")


def properties_of(table: DeltaTable, *writers: str) -> CommitProperties:
    """Return properties of a commit on this snapshot that is rejected if one of `writers` has committed since."""
    versions = [(name, (table.transaction_version(name) or 0) + 1) for name in writers]
    return CommitProperties(app_transactions=[Transaction(*pair) for pair in versions])


def _commit(table: DeltaTable, rows: pa.Table, writer: str, replace: Sequence[str]) -> None:
    """Add rows, in place of those with the same key columns `replace`. Columns that the table lacks are added to it."""
    if not replace:
        properties = properties_of(table, writer)
        write_deltalake(table, rows, mode="append", schema_mode="merge", commit_properties=properties)
        return
    # no Delta merge: it writes string_view columns, on which pyarrow and DuckDB cannot filter
    properties, same = properties_of(table, writer, MAINTENANCE), _same_keys(rows, replace)
    write_deltalake(table, rows, mode="overwrite", schema_mode="merge", predicate=same, commit_properties=properties)


def _same_keys(rows: pa.Table, columns: Sequence[str]) -> str:
    """Return an SQL condition for the rows with these keys; all columns except the last have one value."""
    values = [sorted(set(rows[column].to_pylist())) for column in columns]
    assert all(len(of_column) == 1 for of_column in values[:-1]), "keys would multiply"
    quoted = [", ".join(map(literal, vs)) for vs in values]
    return " and ".join(f"{c} in ({vs})" for c, vs in zip(columns, quoted, strict=True))
