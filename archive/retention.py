"""Delete results that nothing needs: whole partitions, by inference key, of `results` and the tables that depend on it.

tables --plan_prune--> every key with its contents and the reasons to keep it --prune--> the keys that were deleted.
A prune deletes from the snapshot that was read before the reasons. A process that needs a key from then on commits
with the same app transaction (`block_concurrent_prune`); the delete is then rejected and planned again.
Reasons are views, rollbacks, exports, human assertions, runs, and the aliases of the model stores in
<tables>/stores/<sha256 of the file>.json. Runs and the recorder of uploads write one such file for each store.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import socket
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError, DeltaError

from archive.defaults import KEEP_DAYS
from archive.delta.snapshot import open_tables, partition_keys
from archive.delta.sql_literal import literal
from archive.delta.tables import MAINTENANCE, CommitRetries, Tables, properties_of
from archive.schemas import BY_KEY
from archive.views.run_kinds import DETECTS
from archive.views.views import View, Views, not_rolled_back
from model_store.errors import StorageUnreachable
from model_store.storage import Folder, absolute, is_local, require_create
from model_store.storage_errors import storage_error

RECENT = timedelta(days=1)
"""A run with an event in this time may still be active, so its key is kept for any `keep_days`."""
WRITTEN = RECENT
"""A key with rows this recent is kept, because its writer may continue: a run, or the recorder of uploads."""
_FILES = pa.schema(
    [
        ("kind", pa.string()),
        ("inference_key", pa.string()),
        ("num_records", pa.int64()),
        ("size_bytes", pa.int64()),
        ("modification_time", pa.int64()),
    ]
)
_CONTENTS = f"""
    with contents as (
        select inference_key,
            coalesce(sum(num_records) filter (kind = 'results'), 0)::bigint as rows,
            coalesce(sum(num_records) filter (kind = 'snips'), 0)::bigint as snips,
            coalesce(sum(num_records) filter (kind = 'classifications'), 0)::bigint as classifications,
            coalesce(sum(num_records) filter (kind = 'embeddings'), 0)::bigint as embeddings,
            count(*) as files, sum(size_bytes)::bigint as bytes, max(modification_time) as written_ms
        from files group by inference_key),
    newest as (
        select inference_key, max(event_at) as last_run_at,
            arg_max(model_name || '@' || model_version, event_at) as model
        from runs where {DETECTS} group by inference_key)
    select contents.*, newest.model, newest.last_run_at from contents left join newest using (inference_key)
    order by last_run_at desc nulls last, inference_key
"""
Reason = tuple[str, str]
"""An inference key, and a reason to keep its results."""
_EXPORTED = """
    select key, 'it was exported to ' || arg_max(file, exported_at) || ' on ' || max(exported_at)::date
        || if(count(*) > 1, ' (and ' || count(*) - 1 || ' more)', '')
    from (select unnest(inference_keys) as key, file, exported_at from exports) group by key
"""
_ASSERTED = """
    select inference_key, count(*) || ' human assertions refer to it' from assertions
    where method = 'human' and inference_key is not null group by inference_key
"""
_IDENTIFIED = """
    select inference_key, count(*) || ' statements about individuals refer to it' from individuals
    where inference_key is not null group by inference_key
"""
_ACTIVE = """
    with active as (
        select run_id, max(event_at) as event_at,
            unnest(list_distinct(list(inference_key) || list(metrics->>'inference_key'))) as inference_key
        from runs group by run_id having max(event_at) >= $recent)
    select inference_key, 'run ' || arg_max(run_id, event_at) || ' was active on '
        || strftime(max(event_at), '%Y-%m-%d %H:%M') || ' UTC'
    from active group by inference_key
"""
"""The first event of a classify or embed run has the key of the detections in its metrics; later ones may lack it."""
_ENDED = f"""
    with last as (
        from runs where inference_key is not null and {DETECTS}
        qualify row_number() over (partition by run_id order by event desc) = 1)
    select inference_key, 'run ' || arg_max(run_id, event_at) || ' was '
        || replace(arg_max(state, event_at), 'running', 'interrupted') || ' on ' || max(event_at)::date
    from last where state <> 'sealed' or inference_key not in (select unnest($published)) group by inference_key
    having max(event_at) < $recent and max(event_at) >= $since
"""
"""Results of an ended run may still be published or continued; published ones are kept by their views.

Runs of other kinds write layers, classifications or embeddings, which belong to the results of a view.
"""


@dataclass(frozen=True)
class KeyUse:
    """Contents of the tables for one inference key. `rows` counts `results`; `files` and `bytes` cover all tables.

    `model` is that of its newest run. `kept` lists the reasons to keep it; without one it may be deleted.
    """

    inference_key: str
    model: str | None
    rows: int
    snips: int
    classifications: int
    embeddings: int
    files: int
    bytes: int
    last_run_at: datetime | None
    kept: tuple[str, ...]


def plan_prune(tables: Tables, aliased: Collection[Reason], keep_days: float = KEEP_DAYS) -> list[KeyUse]:
    """Return every inference key of the tables, that of the newest run first. Writes nothing.

    `aliased` are inference keys with the reason that an alias gives. Raises StorageUnreachable.
    """
    return _plan(tables, _snapshots(tables), aliased, keep_days)


def prune(tables: Tables, aliased: Collection[Reason], keep_days: float = KEEP_DAYS) -> list[KeyUse]:
    """Delete the results that nothing needs; return what was deleted.

    The files stay on disk for Delta's retention (a week), so that running queries do not fail. The first prune or
    compaction after that removes them. Raises TableConflict, StorageUnreachable, StorageUnsafe.
    """
    require_create(tables.url)
    removed: dict[str, KeyUse] = {}
    retries = CommitRetries(tables.url)
    while True:
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
        except CommitFailedError as error:  # `block_concurrent_prune` of another process, or compacted
            retries.wait(error)
        except (OSError, DeltaError) as error:
            raise storage_error(f"prune {tables.url}", error) from error


def pruned_keys(tables: Tables, keys: Collection[str], name: str = "results") -> list[str]:
    """Return the keys without rows, after their need was recorded and concurrent prunes were blocked.

    The rows of the other keys stay. Raises TableConflict, StorageUnreachable.
    """
    if not keys:
        return []
    if tables.existing(name) is not None:
        block_concurrent_prune(tables, name)
    return sorted(set(keys).difference(partition_keys(tables.existing(name))))


def block_concurrent_prune(tables: Tables, name: str = "results") -> None:
    """Reject prunes that were planned before this call. Call it after recording a new need for a key.

    Check afterwards that the rows of the key still exist. Raises TableConflict, StorageUnreachable.
    """

    def attempt(table: DeltaTable) -> None:
        properties = properties_of(table, MAINTENANCE)
        table.create_write_transaction([], "append", table.schema(), commit_properties=properties)

    tables.commit(name, attempt)


def _snapshots(tables: Tables) -> dict[str, DeltaTable]:
    opened = {name: tables.existing(name) for name in BY_KEY}
    return {name: table for name, table in opened.items() if table is not None}


def _plan(
    tables: Tables, snapshots: Mapping[str, DeltaTable], aliased: Collection[Reason], keep_days: float
) -> list[KeyUse]:
    now = datetime.now(UTC)
    needed = reasons(tables, aliased, keep_days, now)
    recent_ms = (now - WRITTEN).timestamp() * 1e3
    uses: list[KeyUse] = []
    for row in _contents(tables, snapshots):
        kept = needed.get(row["inference_key"], [])
        if row.pop("written_ms") >= recent_ms and not kept:
            kept = ["it was written to in the last day"]
        uses.append(KeyUse(**row, kept=tuple(kept)))
    return uses


def _contents(tables: Tables, snapshots: Mapping[str, DeltaTable]) -> list[dict[str, Any]]:
    connection = open_tables(tables, "runs")
    parts = [_files(name, table) for name, table in snapshots.items()]
    connection.register("files", pa.concat_tables([_FILES.empty_table(), *parts]))
    return connection.sql(_CONTENTS).to_arrow_table().to_pylist()


def _files(name: str, table: DeltaTable) -> pa.Table:
    adds = pa.table(table.get_add_actions(flatten=True))
    columns = ("partition.inference_key", "num_records", "size_bytes", "modification_time")
    kind = pa.array([name] * len(adds), pa.string())
    return pa.table([kind, *(adds[column] for column in columns)], schema=_FILES)


def _delete(table: DeltaTable, keys: Collection[str]) -> None:
    """Delete whole partitions, without rewriting any file. Raises CommitFailedError."""
    stored = sorted(set(partition_keys(table)).intersection(keys))
    if stored:
        listed = ", ".join(map(literal, stored))
        table.delete(f"inference_key in ({listed})", commit_properties=properties_of(table, MAINTENANCE))


def reasons(tables: Tables, aliased: Collection[Reason], keep_days: float, now: datetime) -> dict[str, list[str]]:
    """Return the reasons by inference key; `aliased` are keys with the reason that an alias gives.

    Raises StorageUnreachable: if any reason cannot be read, nothing may be pruned.
    """
    kept: dict[str, list[str]] = defaultdict(list)
    views = Views(tables.url)
    published: set[str] = set()
    for name in views.names():
        history = views.history(name)
        published.update(view.inference_key for view in history)
        for key, reason in of_view(history, keep_days, now):
            kept[key].append(reason)
    sql = open_tables(tables, "exports", "assertions", "individuals", "runs")
    recent, since = now - RECENT, now - timedelta(days=keep_days)
    stored: list[Reason] = [
        *sql.execute(_EXPORTED).fetchall(),
        *sql.execute(_ASSERTED).fetchall(),
        *sql.execute(_IDENTIFIED).fetchall(),
        *sql.execute(_ACTIVE, {"recent": recent}).fetchall(),
        *sql.execute(_ENDED, {"recent": recent, "since": since, "published": sorted(published)}).fetchall(),
    ]
    for key, reason in [*stored, *aliased]:
        kept[key].append(reason)
    return dict(kept)


def of_view(history: Sequence[View], keep_days: float, now: datetime) -> Iterator[Reason]:
    """Yield reasons for the current publication, for what a rollback shows, and for those of the last `keep_days`."""
    if not history:
        return
    current = history[-1]
    yield current.inference_key, f"view {current.name} shows it"
    back = [*not_rolled_back(history)[:-1][-1:], *history[:-1][-1:]]
    for view in {view.serial: view for view in back}.values():
        yield (view.inference_key, f"view {view.name} can be rolled back to it (number {view.serial})")
    since = now - timedelta(days=keep_days)
    for view, successor in itertools.pairwise(history):
        until = successor.published_at
        if view in back or view.inference_key == current.inference_key:
            continue
        if until and until >= since:
            yield view.inference_key, f"view {view.name} showed it until {until:%Y-%m-%d}"


def address(store_url: str) -> str:
    """Return the URL of a store, or `host:/path` on a local disk, where the same path of another host differs."""
    place = absolute(store_url)
    return f"{socket.gethostname()}:{place}" if is_local(store_url) else place


def remember_store(tables_url: str, store_url: str) -> None:
    """Record that the tables have results of models of this store. Raises StorageUnreachable, StorageUnsafe."""
    data = json.dumps({"store": address(store_url)}, ensure_ascii=False).encode()
    require_create(tables_url)
    with contextlib.suppress(FileExistsError):  # the same bytes: the name is their digest
        _folder(tables_url).create(f"{hashlib.sha256(data).hexdigest()}.json", data)


def other_stores(tables_url: str, store_url: str) -> list[str]:
    """Return the recorded stores except this one, as URLs or paths of this machine, sorted.

    Raises StorageUnreachable for a store on the disk of another machine, because its aliases cannot be read.
    """
    folder, host = _folder(tables_url), f"{socket.gethostname()}:"
    stores: list[str] = []
    for name in folder.names():
        if not name.endswith(".json"):
            continue
        try:
            store = str(json.loads(folder.read(name))["store"])
        except (FileNotFoundError, ValueError, LookupError, TypeError) as error:
            raise StorageUnreachable(f"cannot read {folder.url}/{name}: {error}") from error
        if store == address(store_url):
            continue
        if "://" not in store and not store.startswith(host):
            raise StorageUnreachable(
                f"model store {store} also has results in {tables_url}, but this machine cannot read its aliases: "
                f"name all relevant stores with --store, or remove {folder.url}/{name} if the store is gone"
            )
        stores.append(store.removeprefix(host))
    return sorted(stores)


def _folder(tables_url: str) -> Folder:
    return Folder(f"{tables_url}/stores")
