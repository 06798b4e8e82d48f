"""What is said about detections: rows of `assertions`, only ever added. People's statements, and layers' alike.

rows without id --append--> `assertions`; the same rows again add nothing, because the id is the digest of the
row. Of what people said the newest holds: relation `standing`. Nothing said before is deleted.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import duckdb
import pyarrow as pa
from deltalake import DeltaTable

from archive.prune import lost
from archive.scan import scan
from archive.schemas import ASSERTIONS, MEDIA
from archive.tables import Tables
from model_store.errors import Conflict

HUMAN = "human"
"""Both the method and the layer of what people say; other layers have `method` machine and a digest."""
_SPOKEN = ", ".join(name for name in ASSERTIONS.names if name != "group_id")
"""What people's rows have. `group_id` came later, and `scan` cannot ask a file for a column that it lacks."""
ATTACH_IOU = 0.5
"""From this intersection over union on, two boxes are about the same thing."""
IOU = """
    greatest(0, least({a}.x2_px::double, {b}.x2_px) - greatest({a}.x1_px::double, {b}.x1_px))
        * greatest(0, least({a}.y2_px::double, {b}.y2_px) - greatest({a}.y1_px::double, {b}.y1_px)) as shared,
    ({a}.x2_px::double - {a}.x1_px) * ({a}.y2_px::double - {a}.y1_px)
        + ({b}.x2_px::double - {b}.x1_px) * ({b}.y2_px::double - {b}.y1_px) - shared as either,
    shared / nullif(either, 0) as iou
"""
"""Columns of a join of relations {a} and {b}; boxes end where their corner is, without an extra pixel."""
_STANDING = f"""
    create or replace temp table standing as
    with spoken as (select {_SPOKEN} from assertion_rows where method = 'human'),
    pairs as (
        select old.assertion_id, old.asserted_at < new.asserted_at as is_later,
            (old.x1_px, old.y1_px, old.x2_px, old.y2_px) = (new.x1_px, new.y1_px, new.x2_px, new.y2_px) as same_box,
            coalesce(old.inference_key = new.inference_key, false) as same_key, old.rank = new.rank as same_rank,
            {IOU.format(a="old", b="new")}
        from spoken old join spoken new on old.media_sha256 = new.media_sha256
            and (old.asserted_at, old.assertion_id) < (new.asserted_at, new.assertion_id)
        where old.x1_px is not null and new.x1_px is not null),
    replaced as (
        select assertion_id from pairs
        where (same_box or is_later)
            and if(same_key, same_rank, same_box or (iou >= {ATTACH_IOU} and not isnan(iou)))),
    latest as (
        from spoken where assertion_id not in (select assertion_id from replaced)
        qualify x1_px is not null or row_number() over (
            partition by media_sha256, x1_px is null order by asserted_at desc, assertion_id desc) = 1),
    moments as (
        select media_sha256,
            max((asserted_at, assertion_id)) filter (x1_px is null) as emptied,
            max((asserted_at, assertion_id)) filter (
                x1_px is not null and action not in ('suppress', 'withdraw')) as filled
        from latest group by media_sha256)
    select latest.* from latest join moments using (media_sha256)
    where action <> 'withdraw' and case when x1_px is null then filled is null or (asserted_at, assertion_id) > filled
        else emptied is null or (asserted_at, assertion_id) > emptied end
"""
_LISTED = """
    with named as (select media_sha256, min(path) as path from media_rows group by media_sha256)
    select assertion_id, action, label, path, media_sha256, x1_px, y1_px, x2_px, y2_px, actor,
        asserted_at, reason, inference_key, rank,
        assertion_id in (select assertion_id from standing) as standing
    from assertion_rows left join named using (media_sha256)
    where method = 'human' and ($media is null or starts_with(media_sha256, $media))
        and ($label is null or label = $label) and ($history or standing)
    order by asserted_at, assertion_id
"""


def assertion_id(row: Mapping[str, Any]) -> str:
    """sha256 over all other columns of the row, with the values the table will hold.

    When a layer said it is no part of that, so that the same filter run twice adds nothing; when a person
    did is, so that they can come back to what they said first.
    """
    names = [name for name in ASSERTIONS.names if name != "assertion_id"]
    if row["method"] != HUMAN:
        names.remove("asserted_at")
    if row["group_id"] is None:  # a column that came later: rows without it keep their id
        names.remove("group_id")
    said = json.dumps([row[name] for name in names], default=_moment, ensure_ascii=False)
    return hashlib.sha256(said.encode()).hexdigest()


def append(tables: Tables, rows: pa.Table) -> int:
    """Add rows of one layer, in the schema of `assertions` with any `assertion_id`; how many were new.

    From then on no prune takes the results that people have spoken of. Raises Conflict when one has just done
    so (the rows are there, and hold without), StorageUnreachable, TableConflict.
    """
    if not len(rows):
        return 0
    (layer,) = set(rows["layer_id"].to_pylist())
    identified = _once(rows)
    new: list[int] = []

    def missing(snapshot: DeltaTable, wanted: pa.Table) -> pa.Table:
        todo = _not_there(snapshot, layer, wanted)
        new.append(len(todo))
        return todo

    tables.append("assertions", identified, f"assertions:{layer}", missing)
    if layer == HUMAN and max(new):
        _require_kept(tables, identified)
    return max(new)  # a lost acknowledgement finds its own rows when it looks again


def _require_kept(tables: Tables, rows: pa.Table) -> None:
    keys = set(rows["inference_key"].to_pylist()) - {None}
    gone = lost(tables, keys)
    if gone:
        raise Conflict(
            f"what was said is recorded with its boxes and labels, but the results it looked at were pruned "
            f"at the same moment (inference key {', '.join(key[:12] for key in gone)}…): to have them again, "
            "run resight reprocess"
        )


def make_standing(sql: duckdb.DuckDBPyConnection, tables: Tables) -> None:
    """Make relation `standing`: the human assertions that hold, in the columns of `assertions` except `group_id`.

    A later assertion about the same thing in the same image replaces an earlier one, and nothing brings that back.
    Two are about the same thing if they name the same detection; not if they name two of one inference key; else if
    their boxes have IoU >= ATTACH_IOU. Of one moment, only assertions with equal corners replace each other. That
    there is nothing in the image (suppress without a box) replaces all before it, and gives way to a later keep,
    relabel or add of any box. A withdraw replaces what it is about, and does not stand itself; without a box it
    replaces all before it.
    """
    scan(sql, "assertion_rows", tables.existing("assertions"), ASSERTIONS)
    stand(sql)


def stand(sql: duckdb.DuckDBPyConnection) -> None:
    """The same, out of relation `assertion_rows`."""
    sql.execute(_STANDING)


def human_assertions(
    tables: Tables, media: str | None = None, label: str | None = None, history: bool = False
) -> pa.Table:
    """What people said, oldest first: what stands, or with `history` all of it (column `standing`).

    `media` is a digest or its first digits.
    """
    sql = duckdb.connect()
    sql.execute("set timezone = 'UTC'")
    make_standing(sql, tables)
    scan(sql, "media_rows", tables.existing("media"), MEDIA)
    asked = {"media": media, "label": label, "history": history}
    return sql.sql(_LISTED, params=asked).to_arrow_table()


def _once(rows: pa.Table) -> pa.Table:
    """With their ids; a row that is in it twice, once."""
    stored = rows.cast(ASSERTIONS)
    ids = [assertion_id(row) for row in _by_batches(stored)]
    first = {one: place for place, one in reversed(list(enumerate(ids)))}
    column = pa.array(ids, pa.string())
    return pa.Table.from_arrays([column, *stored.columns[1:]], schema=ASSERTIONS).take(
        sorted(first.values())
    )


def _by_batches(rows: pa.Table) -> Iterator[dict[str, Any]]:
    for batch in rows.to_batches(max_chunksize=8192):
        yield from batch.to_pylist()


def _not_there(snapshot: DeltaTable, layer: str, wanted: pa.Table) -> pa.Table:
    sql = duckdb.connect()
    scan(sql, "there", snapshot, ASSERTIONS)
    sql.register("wanted", wanted)
    found = sql.sql(
        "from wanted anti join (select assertion_id from there where layer_id = $layer) "
        "using (assertion_id) order by asserted_at, assertion_id",
        params={"layer": layer},
    )
    return found.to_arrow_table().cast(ASSERTIONS)


def _moment(value: object) -> str:
    assert isinstance(value, datetime)
    return value.astimezone(UTC).isoformat(timespec="microseconds")
