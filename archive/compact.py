"""Many small files of a table into few large ones, while others write to it.

small files of one partition --sort, write--> files of TARGET_BYTES --one commit: remove, add--> same rows
The commit carries MAINTENANCE, as everything does that takes a file out of a table: of two that take out the
same file, one is refused. A refused compaction is committed again when all its files are still there, and
given up otherwise. Appends go on meanwhile. (optimize.compact doubles rows: docs/decisions/0006.)
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from urllib.parse import unquote

import duckdb
import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from deltalake.transaction import AddAction, RemoveAction

from archive.defaults import MIN_FILES
from archive.rewrite import rewrite
from archive.tables import MAINTENANCE, Tables, properties_of
from model_store.errors import StorageUnreachable
from model_store.storage import require_create

TARGET_BYTES = 128 * 2**20
TARGET_ROWS = 1_000_000
GROUP_LARGE_FILES = 4
"""Files of the target size that one commit may write: what is lost when it is refused."""
REFUSALS = 3


@dataclass(frozen=True)
class CompactReport:
    """What became of one table, or partition: files and bytes of all that was looked at.

    `refused` groups of files were given up, because somebody replaced rows of them meanwhile.
    """

    table: str
    partition: str | None
    files_before: int
    files_after: int
    bytes_before: int
    bytes_after: int
    rows: int  # that were written again
    commits: int
    refused: int
    seconds: float


@dataclass(frozen=True, slots=True)
class DataFile:
    """A file of a snapshot, as the log has it."""

    path: str  # in the folder of the table; the log has it quoted once more
    bytes: int
    rows: int
    partition: str | None

    @property
    def small(self) -> bool:
        return self.bytes < TARGET_BYTES // 2 and self.rows < TARGET_ROWS // 2


def small_files(table: DeltaTable, partition: str | None = None) -> int:
    """Files of the partition (of the one with the most of them) that compaction would put together.

    Reads what the snapshot holds in memory: 2 ms at 1,000 files.
    """
    counts: dict[str | None, int] = {}
    for file in data_files(table, partition):
        counts[file.partition] = counts.get(file.partition, 0) + file.small
    return max(counts.values(), default=0)


def compact(
    tables: Tables, name: str, partition: str | None = None, min_files: int = MIN_FILES
) -> CompactReport:
    """Put small files together in each partition (the one named) that has at least `min_files` of them.

    Takes about 10 seconds per million rows. Never raises for what others do to the table meanwhile; raises
    StorageUnreachable and StorageUnsafe.
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
            raise StorageUnreachable(f"cannot compact {tables.url}/{name}: {error}") from error
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
    """Write a checkpoint of the table's log and drop what of the log is beyond Delta's retention (30 days).

    With `vacuum`, also remove files no snapshot of the last week needs, those that were written in vain
    included; how many. Raises StorageUnreachable.
    """
    table = tables.existing(name)
    if table is None:
        return 0
    try:
        table.create_checkpoint()
        table.cleanup_metadata()
        return len(table.vacuum(dry_run=False, full=True)) if vacuum else 0
    except (OSError, DeltaError) as error:
        raise StorageUnreachable(f"cannot tidy {tables.url}/{name}: {error}") from error


def data_files(table: DeltaTable, partition: str | None = None) -> list[DataFile]:
    """Of the partition, or of all; reads what the snapshot holds in memory."""
    adds = pa.table(table.get_add_actions(flatten=True))
    columns = table.metadata().partition_columns
    assert len(columns) <= 1, "a table here has one partition column at most"
    keys = adds[f"partition.{columns[0]}"].to_pylist() if columns else [None] * len(adds)
    facts = (adds[name].to_pylist() for name in ("path", "size_bytes", "num_records"))
    files = [DataFile(unquote(p), b, r or 0, k) for p, b, r, k in zip(*facts, keys, strict=True)]
    return [file for file in files if partition is None or file.partition == partition]


def _next_group(files: Sequence[DataFile], min_files: int) -> list[DataFile]:
    """Small files of one partition to put together now; empty when none has enough of them."""
    by_partition: dict[str | None, list[DataFile]] = {}
    for file in files:
        if file.small:
            by_partition.setdefault(file.partition, []).append(file)
    for small in by_partition.values():
        if len(small) < min_files:
            continue
        sizes = accumulate(file.bytes for file in small)
        rows = accumulate(file.rows for file in small)
        fitting = [_parts(*sums) <= GROUP_LARGE_FILES for sums in zip(sizes, rows, strict=True)]
        group = small[: max(1, sum(fitting))]
        if len(group) > parts_of(group):
            return group
    return []


def _parts(size_bytes: int, rows: int) -> int:
    """How many files so much becomes."""
    return max(1, -(-size_bytes // TARGET_BYTES), -(-rows // TARGET_ROWS))


def parts_of(group: Sequence[DataFile]) -> int:
    """How many files the rows of these shall become."""
    return _parts(sum(file.bytes for file in group), sum(file.rows for file in group))


def _compact_group(tables: Tables, name: str, table: DeltaTable, group: Sequence[DataFile]) -> bool:
    """Whether it is committed. Files that were written in vain are left to `vacuum`."""
    paths = {file.path for file in group}
    adds = rewrite(table, name, paths, group[0].partition, parts_of(group))
    _require_same_rows(table, group, adds)
    now_ms = int(time.time() * 1000)
    values = dict(adds[0].partition_values)
    removes = [RemoveAction(f.path, False, now_ms, f.bytes, values) for f in group]
    latest = table
    for attempt in range(REFUSALS):
        try:
            latest.create_write_transaction(
                [*removes, *adds],
                "append",
                latest.schema(),
                latest.metadata().partition_columns,
                commit_properties=properties_of(latest, MAINTENANCE),
            )
            return True
        except (DeltaError, OSError):
            time.sleep(0.1 * 2**attempt)
            latest = tables.snapshot(name)
            there = {file.path for file in data_files(latest, group[0].partition)}
            if all(add.path in there for add in adds):
                return True  # it was committed, and the answer was lost
            if not paths <= there:
                return False
    return False


def _require_same_rows(
    table: DeltaTable, group: Sequence[DataFile], adds: Sequence[AddAction]
) -> None:
    found = sum(json.loads(add.stats)["numRecords"] for add in adds)
    wanted = sum(file.rows for file in group)
    if found != wanted and all(file.rows for file in group):
        raise StorageUnreachable(
            f"{len(group)} files of {table.table_uri} hold {found} rows, the log says {wanted}; "
            "nothing was changed"
        )
