"""Merge many small files of a table into few large ones, while other processes write to it.

small files of one partition --sort, write--> files of TARGET_BYTES --one commit: remove, add--> same rows
The commit carries MAINTENANCE, like every commit that removes a file from a table: if two remove the same file, one
is rejected. A rejected compaction is retried while the table still has all its files, and abandoned otherwise.
Appends are never blocked. (optimize.compact doubles rows: docs/decisions/0006.)
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import duckdb
import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from deltalake.transaction import AddAction, RemoveAction

from archive.defaults import MIN_FILES
from archive.delta.rewrite import rewrite
from archive.delta.snapshot import DataFile, data_files
from archive.delta.tables import Tables
from model_store.errors import StorageUnreachable
from model_store.storage import require_create
from model_store.storage_errors import storage_error

TARGET_BYTES = 128 * 2**20
TARGET_ROWS = 1_000_000
"""Limits of a new file. Each commit writes one: lists are sorted in memory, everything else may spill."""
REFUSALS = 3
"""Rejected commits of a group, and rejected groups, after which the rest is left to a later compaction."""


@dataclass(frozen=True)
class CompactReport:
    """Files and bytes of one table or partition before and after its compaction.

    `refused` groups of files were abandoned because another process replaced rows in them.
    """

    table: str
    partition: str | None
    files_before: int
    files_after: int
    bytes_before: int
    bytes_after: int
    rows: int  # rewritten
    commits: int
    refused: int
    seconds: float


def compact(tables: Tables, name: str, partition: str | None = None, min_files: int = MIN_FILES) -> CompactReport:
    """Merge the small files of each partition, or of the given one, that has at least `min_files` of them.

    Takes about 10 seconds per million rows. Raises StorageUnreachable and StorageUnsafe, but nothing for concurrent
    changes to the table.
    """
    require_create(tables.url)
    started = time.monotonic()
    table = tables.existing(name)
    before = data_files(table, partition) if table else []
    commits = refused = rows = 0
    while table and refused < REFUSALS:
        group = _next_group(data_files(table, partition), max(2, min_files))
        if not group:
            break
        try:
            done = _compact_group(tables, name, table, group)
        except (OSError, DeltaError, duckdb.Error, pa.ArrowException) as error:
            raise storage_error(f"compact {tables.url}/{name}", error) from error
        commits, refused = commits + done, refused + (not done)
        rows += sum(file.rows for file in group) * done
        table = tables.existing(name)
    after = data_files(table, partition) if table else []
    return CompactReport(
        table=name,
        partition=partition,
        files_before=len(before),
        files_after=len(after),
        bytes_before=sum(file.bytes for file in before),
        bytes_after=sum(file.bytes for file in after),
        rows=rows,
        commits=commits,
        refused=refused,
        seconds=round(time.monotonic() - started, 3),
    )


def tidy(tables: Tables, name: str, vacuum: bool = False) -> int:
    """Write a checkpoint of the table's log and delete log files older than Delta's retention (30 days).

    With `vacuum`, also delete files that no snapshot of the last week needs, including those of rejected commits.
    Return the number of files that `vacuum` deleted. Raises StorageUnreachable.
    """
    table = tables.existing(name)
    if table is None:
        return 0
    try:
        table.create_checkpoint()
        table.cleanup_metadata()
        return len(table.vacuum(dry_run=False, full=True)) if vacuum else 0
    except (OSError, DeltaError) as error:
        raise storage_error(f"tidy {tables.url}/{name}", error) from error


def _next_group(files: Sequence[DataFile], min_files: int) -> list[DataFile]:
    """Return small files of one partition to merge next; empty if no partition has enough of them."""
    by_partition: dict[str | None, list[DataFile]] = {}
    for file in files:
        if file.bytes < TARGET_BYTES // 2 and file.rows < TARGET_ROWS // 2:
            by_partition.setdefault(file.partition, []).append(file)
    for small in by_partition.values():
        if len(small) < min_files:
            continue
        sizes = accumulate(file.bytes for file in small)
        rows = accumulate(file.rows for file in small)
        return small[: sum(_parts(*sums) == 1 for sums in zip(sizes, rows, strict=True))]  # at least two
    return []


def _parts(size_bytes: int, rows: int) -> int:
    """Return the number of files for this size."""
    return max(1, -(-size_bytes // TARGET_BYTES), -(-rows // TARGET_ROWS))


def parts_of(group: Sequence[DataFile]) -> int:
    """Return the number of files into which the rows of `group` are written."""
    return _parts(sum(file.bytes for file in group), sum(file.rows for file in group))


def _compact_group(tables: Tables, name: str, table: DeltaTable, group: Sequence[DataFile]) -> bool:
    """Return whether the group was committed. The files of a rejected commit are left to `vacuum`."""
    paths, partition = {file.path for file in group}, group[0].partition
    adds = rewrite(table, name, paths, partition)
    _require_same_rows(table, group, adds)
    now_ms, values = int(time.time() * 1000), dict(adds[0].partition_values)
    removes = [RemoveAction(f.path, False, now_ms, f.bytes, values) for f in group]
    refused, attempts = False, 0

    def actions(latest: DeltaTable) -> Sequence[AddAction | RemoveAction]:
        nonlocal refused, attempts
        current = {file.path for file in data_files(latest, partition)}
        is_committed = all(add.path in current for add in adds)  # and the acknowledgement was lost
        refused = not is_committed and (attempts == REFUSALS or not paths <= current)
        attempts += 1
        return [] if is_committed or refused else [*removes, *adds]

    tables.swap(name, actions)
    return not refused


def _require_same_rows(table: DeltaTable, group: Sequence[DataFile], adds: Sequence[AddAction]) -> None:
    read = sum(json.loads(add.stats)["numRecords"] for add in adds)
    listed = sum(file.rows for file in group)
    if read != listed and all(file.rows for file in group):
        raise StorageUnreachable(
            f"{len(group)} files of {table.table_uri} hold {read} rows, but the log lists {listed}; nothing was changed"
        )
