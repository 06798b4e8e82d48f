"""Remove results that nothing needs: whole partitions of `results` and of what hangs on them, by inference key.

tables --plan_prune--> every key, with what it holds and why it is kept --prune--> those without a reason are
gone. It deletes from the snapshot that was read before the reasons; whoever comes to need a key then takes the
same guard (`hold`), and the delete is refused and planned again.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import duckdb
import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError, DeltaError

from archive.dataset import dataset, partition_keys
from archive.defaults import KEEP_DAYS
from archive.needs import RECENT, reasons
from archive.run_kinds import DETECTS
from archive.schemas import BY_KEY, RUNS
from archive.tables import COMMIT_ATTEMPTS, MAINTENANCE, Tables, properties_of
from model_store.errors import StorageUnreachable, TableConflict
from model_store.storage import require_create

WRITTEN = RECENT
"""Whoever wrote to a key so lately may be about to go on, and need not be a run: answers are kept too."""
_FILES = pa.schema(
    [
        ("kind", pa.string()),
        ("inference_key", pa.string()),
        ("num_records", pa.int64()),
        ("size_bytes", pa.int64()),
        ("modification_time", pa.int64()),
    ]
)
_HELD = f"""
    with held as (
        select inference_key,
            coalesce(sum(num_records) filter (kind = 'results'), 0)::bigint as rows,
            coalesce(sum(num_records) filter (kind = 'snips'), 0)::bigint as snips,
            coalesce(sum(num_records) filter (kind = 'classifications'), 0)::bigint as classifications,
            count(*) as files, sum(size_bytes)::bigint as bytes, max(modification_time) as written_ms
        from files group by inference_key),
    newest as (
        select inference_key, max(event_at) as last_run_at,
            arg_max(model_name || '@' || model_version, event_at) as model
        from runs where {DETECTS} group by inference_key)
    select held.*, newest.model, newest.last_run_at from held left join newest using (inference_key)
    order by last_run_at desc nulls last, inference_key
"""


@dataclass(frozen=True)
class KeyUse:
    """What the tables hold of one inference key; `rows` of `results`, the others of the tables of their name.

    `files` and `bytes` are of all of them. `model` is that of its newest run. `kept` says why; empty: it may go.
    """

    inference_key: str
    model: str | None
    rows: int
    snips: int
    classifications: int
    files: int
    bytes: int
    last_run_at: datetime | None
    kept: tuple[str, ...]


def plan_prune(
    tables: Tables, aliased: Mapping[str, str], keep_days: float = KEEP_DAYS
) -> list[KeyUse]:
    """Every inference key of the tables, the one that was worked on last first. Nothing is written.

    `aliased` maps inference keys to words about the alias that means them. Raises StorageUnreachable.
    """
    return _plan(tables, _snapshots(tables), aliased, keep_days)


def prune(tables: Tables, aliased: Mapping[str, str], keep_days: float = KEEP_DAYS) -> list[KeyUse]:
    """Remove what nothing needs; what was removed.

    The files stay on disk for Delta's retention (a week), so that readers at work do not fail, and go with
    the first prune or compaction after it. Raises TableConflict, StorageUnreachable, StorageUnsafe.
    """
    require_create(tables.url)
    removed: dict[str, KeyUse] = {}
    for attempt in range(COMMIT_ATTEMPTS):
        snapshots = _snapshots(tables)
        plan = _plan(tables, snapshots, aliased, keep_days)
        free = {use.inference_key: use for use in plan if not use.kept}
        try:
            for table in snapshots.values():
                _delete(table, free)
                removed = free | removed
            for table in snapshots.values():
                table.vacuum(dry_run=False)
            return list(removed.values())
        except CommitFailedError:  # somebody holds a key, or compacts
            time.sleep(0.05 * 2 ** min(attempt, 6))
        except (OSError, DeltaError) as error:
            raise StorageUnreachable(f"cannot prune {tables.url}: {error}") from error
    raise TableConflict(f"{tables.url}: {COMMIT_ATTEMPTS} prunes were refused; try again later")


def lost(tables: Tables, keys: Collection[str], name: str = "results") -> list[str]:
    """Whoever has just recorded why these keys are needed: those of which a prune has taken the rows.

    The others stay. Raises TableConflict, StorageUnreachable.
    """
    if not keys:
        return []
    if tables.existing(name) is not None:
        hold(tables, name)
    return sorted(set(keys).difference(partition_keys(tables.existing(name))))


def hold(tables: Tables, name: str = "results") -> None:
    """Whoever has just made a key needed: a prune that was planned before this is refused.

    Look afterwards whether the key's rows are still there. Raises TableConflict, StorageUnreachable.
    """
    last: Exception | None = None
    for attempt in range(COMMIT_ATTEMPTS):
        try:
            table = tables.snapshot(name)
            table.create_write_transaction(
                [], "append", table.schema(), commit_properties=properties_of(table, MAINTENANCE)
            )
            return
        except (CommitFailedError, DeltaError, OSError) as error:
            last = error
            time.sleep(0.05 * 2 ** min(attempt, 6))
    raise TableConflict(f"{tables.url}/{name}: {COMMIT_ATTEMPTS} commits refused: {last}")


def _snapshots(tables: Tables) -> dict[str, DeltaTable]:
    found = {name: tables.existing(name) for name in BY_KEY}
    return {name: table for name, table in found.items() if table is not None}


def _plan(
    tables: Tables,
    snapshots: Mapping[str, DeltaTable],
    aliased: Mapping[str, str],
    keep_days: float,
) -> list[KeyUse]:
    now = datetime.now(UTC)
    needed = reasons(tables, aliased, keep_days, now)
    young_ms = (now - WRITTEN).timestamp() * 1e3
    uses: list[KeyUse] = []
    for row in _held(tables, snapshots):
        words = needed.get(row["inference_key"], [])
        if row.pop("written_ms") >= young_ms and not words:
            words = ["it was written to in the last day"]
        uses.append(KeyUse(**row, kept=tuple(words)))
    return uses


def _held(tables: Tables, snapshots: Mapping[str, DeltaTable]) -> list[dict[str, Any]]:
    connection = duckdb.connect()
    connection.execute("set timezone = 'UTC'")
    runs = tables.existing("runs")
    connection.register("runs", RUNS.empty_table() if runs is None else dataset(runs, RUNS))
    parts = [_files(name, table) for name, table in snapshots.items()]
    connection.register("files", pa.concat_tables([_FILES.empty_table(), *parts]))
    return connection.sql(_HELD).to_arrow_table().to_pylist()


def _files(name: str, table: DeltaTable) -> pa.Table:
    adds = pa.table(table.get_add_actions(flatten=True))
    columns = ("partition.inference_key", "num_records", "size_bytes", "modification_time")
    kind = pa.array([name] * len(adds), pa.string())
    return pa.table([kind, *(adds[column] for column in columns)], schema=_FILES)


def _delete(table: DeltaTable, keys: Collection[str]) -> None:
    """Whole partitions: files leave the table, none is written. Raises CommitFailedError."""
    there = sorted(set(partition_keys(table)).intersection(keys))
    if there:
        listed = ", ".join("'" + key.replace("'", "''") + "'" for key in there)
        table.delete(
            f"inference_key in ({listed})", commit_properties=properties_of(table, MAINTENANCE)
        )
