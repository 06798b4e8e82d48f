"""The Delta tables under one local path or s3:// URL, and the one way rows get into them.

Tables(url).append(name, rows, writer, missing) writes rows exactly once: the commit carries a Delta
app transaction one above the snapshot's, so a writer with a stale snapshot is refused; it then reloads
and keeps only what is still missing. A lost acknowledgement is the same case. Whatever takes a file out
of a table carries MAINTENANCE besides. (Never use Dataset.write_delta, optimize.compact or Ray
checkpoints here: docs/decisions/0006.)
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
from typing import Literal

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, RemoveAction

from archive.schemas import PARTITIONS, TABLES
from model_store.errors import BadRequest, StorageUnreachable, TableConflict
from model_store.storage import is_local, require_create

COMMIT_ATTEMPTS, LOST_RACES = 20, 100
"""A writer gives up after so many failures, or so many commits of other writers that came before its own. It may lose
more often than it may fail: it repeats at once, and each lost race is progress of another.
"""
MAINTENANCE = "resight:maintenance"
"""App transaction of every commit that takes files out of a table: of two at once, one is refused. Without
it, both of two that replace the same file would commit, and each row of it would be there twice.
"""
KEYS_PER_COMMIT = 5_000
"""Keys of one replacement: delta-rs walks the list of them by recursion, and 8 MB of stack end between
20,000 and 50,000."""
FRESH_EVERY = 25
"""Commits on one snapshot object, in the mean: each makes the next one 0.35 ms slower, until it is opened anew."""
_NOT_IN_PATHS = re.compile(r"[\[\]|^\\\x00-\x1f\x7f]|%[0-9A-Fa-f]{2}")
_NOT_IN_KEYS = re.compile(rf"{_NOT_IN_PATHS.pattern}|[#?]|::")
_WORDS = "[ ] | ^ \\, control characters, % before two hex digits"
_MERGE: Literal["merge"] = "merge"
"""Columns that came later are added to an older table; its rows have null there."""
Missing = Callable[[DeltaTable, pa.Table], pa.Table]
Swap = Callable[[DeltaTable], Sequence[AddAction | RemoveAction]]


class Tables:
    """Opens, creates and appends; every DeltaTable it hands out is a snapshot."""

    published_upto: int | None = None
    """Serial of the newest publication to look at; None: no limit."""

    def __init__(self, url: str) -> None:
        """Raises BadRequest for a path that delta-rs cannot open."""
        _require_openable(url)
        self.url = url
        self._options = storage_options(url)
        self._raced: set[tuple[str, str]] = set()  # tables and writers that have lost a race

    def snapshot(self, name: str) -> DeltaTable:
        """The newest snapshot; an empty table is created when there is none yet.

        Raises StorageUnreachable, StorageUnsafe.
        """
        found = self.existing(name)
        if found is not None:
            return found
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
            found = self.existing(name)  # made by another in the same moment
            if found is not None:
                return found
            raise StorageUnreachable(f"cannot make table {self._path(name)}: {error}") from error

    def existing(self, name: str) -> DeltaTable | None:
        """The newest snapshot, or None. Raises StorageUnreachable when the place is away."""
        try:
            return DeltaTable(self._path(name), storage_options=self._options)
        except TableNotFoundError:
            return None
        except (OSError, DeltaError) as error:
            raise StorageUnreachable(f"cannot open table {self._path(name)}: {error}") from error

    def append(
        self,
        name: str,
        rows: pa.Table,
        writer: str,
        missing: Missing,
        base: DeltaTable | None = None,
        replace: Sequence[str] = (),
    ) -> DeltaTable:
        """Commit the rows that are still missing; the snapshot that now holds all of them.

        `missing(snapshot, rows)` drops rows the snapshot has; it runs again after every lost race.
        With `base`, the caller vouches that `rows` are missing from that very snapshot, so that the
        first try need not look. The snapshot returned is the next `base`: it has gained own rows alone, or
        a race was lost, after which every try looks. `replace` names
        the key columns: rows of the table with the same key go in the same commit, of which there is one
        for KEYS_PER_COMMIT rows, each writing anew the files its rows are in: for many rows `archive/replace.py`
        is cheaper. Raises TableConflict after COMMIT_ATTEMPTS failures or LOST_RACES lost races, StorageUnsafe.
        """
        require_create(self.url)
        parts = _parts(rows, KEYS_PER_COMMIT) if replace else [rows]
        table = base
        for part in parts:
            table = self._append(name, part, writer, missing, table if base else None, replace)
        return table or self.snapshot(name)

    def swap(self, name: str, writer: str, actions: Swap) -> DeltaTable:
        """Commit `actions(snapshot)`, files to take out and files to add; the snapshot that has them.

        It is asked again after every lost race, and gives none where all is done: then the answer to a commit
        was lost. What it raises is not tried again. Raises TableConflict, StorageUnreachable, StorageUnsafe.
        """
        require_create(self.url)
        self._raced.add((name, writer))  # for these snapshots nobody vouches
        tries: Counter[bool] = Counter()
        while True:
            table = self.snapshot(name)
            due = actions(table)
            if not due:
                return table
            try:
                table.create_write_transaction(
                    list(due),
                    "append",
                    table.schema(),
                    table.metadata().partition_columns,
                    commit_properties=properties_of(table, writer, MAINTENANCE),
                )
            except (CommitFailedError, DeltaError, OSError) as error:
                self._wait(name, error, tries)
            else:
                return self.snapshot(name)

    def _append(
        self,
        name: str,
        rows: pa.Table,
        writer: str,
        missing: Missing,
        base: DeltaTable | None,
        replace: Sequence[str],
    ) -> DeltaTable:
        table = base
        todo = None if (name, writer) in self._raced else rows
        tries: Counter[bool] = Counter()
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
                self._wait(name, error, tries)

    def _wait(self, name: str, error: Exception, tries: Counter[bool]) -> None:
        """Count a try, wait before the next one; raise TableConflict when it was the last."""
        lost = isinstance(error, CommitFailedError)
        tries[lost] += 1
        if tries[lost] >= (LOST_RACES if lost else COMMIT_ATTEMPTS):
            refused = f"{self._path(name)}: {tries.total()} commits refused: {error}"
            raise TableConflict(refused) from error
        longest_s = 1.0 if lost else 5.0
        time.sleep(random.uniform(0.5, 1.5) * min(longest_s, 0.05 * 2 ** (tries[lost] - 1)))

    def _fresh(self, table: DeltaTable) -> DeltaTable:
        """The same version, now and then opened anew."""
        if random.randrange(FRESH_EVERY):
            return table
        with contextlib.suppress(OSError, DeltaError):
            return DeltaTable(table.table_uri, table.version(), storage_options=self._options)
        return table

    def _path(self, name: str) -> str:
        return f"{self.url}/{name}"


def _require_openable(url: str) -> None:
    """Refuse what delta-rs panics at or reads as other characters, and at S3 what a URL or fsspec ends the key at."""
    wrong = (_NOT_IN_PATHS if is_local(url) else _NOT_IN_KEYS).search(url)
    if wrong:
        raise BadRequest(
            f"the tables cannot be in {url!r}: Delta Lake's library cannot open a path with {wrong[0]!r}. Rename the "
            f"folder, or set RESIGHT_TABLES to one without {_WORDS if is_local(url) else _WORDS + ' # ? ::'}"
        )


def storage_options(url: str) -> dict[str, str]:
    """What delta-rs needs beyond the AWS_* variables it reads itself: of the two that name an endpoint, s3fs prefers
    that of S3.
    """
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", "")
    if is_local(url) or not endpoint:
        return {}
    plain = {"AWS_ALLOW_HTTP": "true"} if endpoint.startswith("http://") else {}
    return plain | {"AWS_ENDPOINT_URL": endpoint}


def properties_of(table: DeltaTable, *writers: str) -> CommitProperties:
    """A commit on this snapshot in the names of these writers; refused when one of them was faster."""
    versions = [(name, (table.transaction_version(name) or 0) + 1) for name in writers]
    return CommitProperties(app_transactions=[Transaction(*one) for one in versions])


def _parts(rows: pa.Table, size: int) -> list[pa.Table]:
    return [rows.slice(start, size) for start in range(0, len(rows), size)]


def _commit(table: DeltaTable, rows: pa.Table, writer: str, replace: Sequence[str]) -> None:
    properties = properties_of(table, writer, *([MAINTENANCE] if replace else []))
    if not replace:
        write_deltalake(
            table, rows, mode="append", schema_mode=_MERGE, commit_properties=properties
        )
        return
    # not merge: it writes string_view columns, on which pyarrow and DuckDB cannot filter
    write_deltalake(
        table,
        rows,
        mode="overwrite",
        schema_mode=_MERGE,
        predicate=_same_keys(rows, replace),
        commit_properties=properties,
    )


def _same_keys(rows: pa.Table, columns: Sequence[str]) -> str:
    """SQL that selects the rows with these keys; all columns but the last have one value."""
    values = [sorted(set(rows[column].to_pylist())) for column in columns]
    assert all(len(of_column) == 1 for of_column in values[:-1]), "keys would multiply"
    quoted = [", ".join("'" + v.replace("'", "''") + "'" for v in vs) for vs in values]
    return " and ".join(f"{c} in ({vs})" for c, vs in zip(columns, quoted, strict=True))
