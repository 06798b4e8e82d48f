"""Append-only statements about detections, by people and by layers: rows of `assertions`.

rows without id --append--> `assertions`; the id is the digest of the row, so appending the same rows adds nothing
The newest human statement about a thing is valid: relation `standing`. Earlier statements are never deleted.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from archive.delta.relations import Relations
from archive.delta.snapshot import memory_database, open_tables, scan
from archive.delta.tables import Tables
from archive.delta.writer import Writer
from archive.retention import pruned_keys
from archive.schemas import ASSERTIONS, MEDIA
from model_store.errors import Conflict

HUMAN = "human"
"""Method and layer of human statements; layers of filters have `method` machine and a digest as their id."""
_ADDED_LATER = ("group_id", "batch_id", "withdraws")
"""Columns that were added later: rows without them keep their id."""
_FOLDER = Path(__file__).parent
NO_ANNOTATIONS = _FOLDER / "no_annotations.sql"
INDIVIDUALS_SQL = _FOLDER / "individuals.sql"
ANNOTATIONS = Relations(_FOLDER / "annotations.sql")
"""Relations of human assertions and layers, and macro `iou` over two rows with a box."""
_LISTED = """
    with named as (select media_sha256, min(path) as path from media_rows group by media_sha256)
    select assertion_id, action, label, path, media_sha256, x1_px, y1_px, x2_px, y2_px, actor,
        asserted_at, reason, inference_key, rank,
        assertion_id in (select assertion_id from standing) as standing, batch_id, withdraws
    from assertion_rows left join named using (media_sha256)
    where method = 'human' and ($media is null or starts_with(media_sha256, $media))
        and ($label is null or label = $label) and ($history or standing)
    order by asserted_at, assertion_id
"""
_MISSING = """
    from wanted anti join (select assertion_id from stored where layer_id = $layer) using (assertion_id)
    order by asserted_at, assertion_id
"""


def assertion_id(row: Mapping[str, Any]) -> str:
    """Return the sha256 over all other columns of the row, with the values that the table will hold.

    `append` sets the batch of a row afterwards, so that a file has the same ids each time.
    It excludes the time of a layer's row, so that running a filter twice adds nothing. It includes the time of a human
    row, so that people can return to an earlier statement.
    """
    excluded = {"assertion_id", *(name for name in _ADDED_LATER if row.get(name) is None)}
    if row["method"] != HUMAN:
        excluded.add("asserted_at")
    text = json.dumps(
        [row[name] for name in ASSERTIONS.names if name not in excluded],
        default=lambda time: time.astimezone(UTC).isoformat(timespec="microseconds"),
        ensure_ascii=False,
    )
    return hashlib.sha256(text.encode()).hexdigest()


def append(tables: Tables, rows: pa.Table, batch_ids: Mapping[str, str] | None = None) -> int:
    """Add human statements, in the schema of `assertions` with any `assertion_id`; return the number of new rows.

    `batch_ids` has the batch of each actor's new rows; the id of a row does not depend on it. Afterwards no prune
    removes the results that they refer to. Raises Conflict if a concurrent prune has just removed them (the rows are
    stored and stay valid), StorageUnreachable, TableConflict.
    """
    if not len(rows):
        return 0
    wanted = with_ids(rows)
    if batch_ids is not None:
        of_rows = pa.array([batch_ids[actor] for actor in wanted["actor"].to_pylist()], pa.string())
        wanted = wanted.set_column(ASSERTIONS.get_field_index("batch_id"), "batch_id", of_rows)
    added = Writer(tables, "assertions", HUMAN).append_new(wanted, _missing_rows)
    if added:
        require_kept(tables, set(rows["inference_key"].to_pylist()) - {None})
    return added


def require_kept(tables: Tables, keys: set[str]) -> None:
    """Block prunes of the results of these keys, after statements about them were recorded; see `append`."""
    pruned = pruned_keys(tables, keys)
    if pruned:
        raise Conflict(
            "the statements are recorded with their boxes and labels, but the results they refer to were pruned "
            f"concurrently (inference key {', '.join(key[:12] for key in pruned)}…): run resight reprocess to "
            "restore them"
        )


def make_standing(sql: duckdb.DuckDBPyConnection, tables: Tables) -> None:
    """Create relation `standing`: the valid human assertions, without columns `group_id` and `withdraws`.

    A row with `withdraws` removes exactly that assertion, as if it had never been recorded.
    A later assertion replaces an earlier one about the same thing in the same image, for good.
    If both name detections of one inference key, these must be the same. Otherwise the IoU of their boxes must be at
    least 0.5 (`is_same_box`). Assertions of the same time replace each other only if their corners are equal.
    A suppress without a box (the image is empty) replaces everything before it, and is replaced by a later keep,
    relabel or add of any box. A withdraw replaces its target and is not valid itself; without a box it replaces
    everything before it.
    """
    scan(sql, "assertion_rows", tables.existing("assertions"), ASSERTIONS)
    ANNOTATIONS.create(sql, "standing")


def match_annotations(sql: duckdb.DuckDBPyConnection, inference_key: str) -> None:
    """Create the relations `annotated`, `added` and `orphaned` from `boxes` of one inference key and `assertion_rows`.

    An annotation applies to the detection that it names. Otherwise it applies to the detection of any model that covers
    its box best, with an IoU of at least 0.5; of those with one of 0.75 to 0.98, to the one with the highest score,
    first among those that it covers best. If two valid boxes match one detection, the one with the higher IoU applies.
    """
    sql.execute("set variable inference_key = $key", {"key": inference_key})
    ANNOTATIONS.create(sql, "annotated", "added", "orphaned")


def withdraw_nothing(tables: Tables, rows: pa.Table) -> set[str]:
    """Return the images in which the withdrawals among new `rows` change nothing: no earlier statement stands there."""
    actions = pc.field("action")
    images = set(rows.filter(actions == "withdraw")["media_sha256"].to_pylist())
    if not images:
        return images
    with open_tables(tables) as sql:
        scan(sql, "recorded", tables.existing("assertions"), ASSERTIONS)
        standing: list[set[tuple[str, str]]] = []
        identified = with_ids(rows)
        for added in (identified, identified.filter(actions != "withdraw")):
            sql.register("added", added)
            sql.execute("create or replace temp view assertion_rows as from recorded union by name from added")
            ANNOTATIONS.create(sql, "standing")
            found = sql.execute("select media_sha256, assertion_id from standing").fetchall()
            standing.append(set(found))
    return images - {image for image, _ in standing[0] ^ standing[1]}


def human_assertions(
    tables: Tables, media: str | None = None, label: str | None = None, history: bool = False
) -> pa.Table:
    """Return human statements, oldest first: the valid ones, or with `history` all of them (column `standing`).

    `media` is a digest or its first digits.
    """
    sql = open_tables(tables)
    make_standing(sql, tables)
    scan(sql, "media_rows", tables.existing("media"), MEDIA)
    values = {"media": media, "label": label, "history": history}
    return sql.sql(_LISTED, params=values).to_arrow_table()


def with_ids(rows: pa.Table) -> pa.Table:
    """Return the rows with their ids, without duplicates."""
    stored = rows.cast(ASSERTIONS)
    ids = [assertion_id(row) for batch in stored.to_batches(max_chunksize=8192) for row in batch.to_pylist()]
    first = {row_id: index for index, row_id in reversed(list(enumerate(ids)))}
    column = pa.array(ids, pa.string())
    return pa.Table.from_arrays([column, *stored.columns[1:]], schema=ASSERTIONS).take(
        pa.array(sorted(first.values()), pa.int64())
    )


def _missing_rows(snapshot: DeltaTable, wanted: pa.Table) -> pa.Table:
    sql = memory_database()
    scan(sql, "stored", snapshot, ASSERTIONS)
    sql.register("wanted", wanted)
    return sql.sql(_MISSING, params={"layer": HUMAN}).to_arrow_table().cast(ASSERTIONS)
