"""Number the images of a filter run in order, and keep their data as narrow tables by number.

relations chosen, contents, result_rows (batch/filters/load.py) --number--> images, numbers, boxes_n
assertions, annotations, logits --number_layers, also_numbered--> below_n, annotated_n, said_n, classified_n
--part--> rows of schema PART of a range of images, joined on demand, so that no wide table is sorted
"""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import pyarrow as pa

from archive.annotations.assertions import ANNOTATIONS
from archive.annotations.layers import Layer
from batch.filters.contract import Context
from batch.filters.evaluate import PART

LOGITS = pa.field("logits", pa.list_(pa.float32()))
_IMAGES = """
    create table images as
    select c.media_sha256, c.path, c.camera_id, c.taken_local, c.taken_utc, c.clock_flags,
        c.sequence_number, c.sequence_length,
        coalesce(s.width_px, c.width_px)::double as width_px, coalesce(s.height_px, c.height_px)::double as height_px,
        {group} as part_of
    from chosen join result_rows s using (media_sha256) join contents c using (media_sha256)
    where s.status = 'ok'
    order by c.unknown, c.place, c.taken_local is null, c.taken_local, c.path, c.media_sha256;
    create table numbers as select media_sha256, rowid as n from images;
    create or replace table boxes_n as
    with flat as (
        select n, unnest(detections) as d from result_rows join numbers using (media_sha256))
    select n, d.rank, d.label, d.score, d.x1_px, d.y1_px, d.x2_px, d.y2_px from flat order by n, d.rank;
    create view boxes as
    select i.media_sha256, b.rank, b.label, b.score, b.x1_px, b.y1_px, b.x2_px, b.y2_px
    from boxes_n b join images i on i.rowid = b.n;
"""
_NUMBERED = {
    "annotated_n": "select n, rank, action from annotated join numbers using (media_sha256) order by n, rank",
    "said_n": """select n, rank, assertion_id, action, label, score
        from said_by_layer join numbers using (media_sha256) where action <> 'withdraw' order by n, rank""",
    "classified_n": """select n, rank, logits
        from classified join numbers using (media_sha256) order by n, rank""",
}
_BELOW = """
    create table below_n (n bigint, rank integer, position integer, weight integer, groups varchar, action varchar,
        label varchar, score float, score_semantics varchar, layer_id varchar, assertion_id varchar,
        reason varchar, group_id varchar, asserted_at timestamptz)
"""
_INSERT_LAYER = """
    insert into below_n
    select n, rank, $position, $position + if(action = 'suppress', $layers, 0), $groups, action, label, score,
        score_semantics, layer_id, assertion_id, reason, group_id, asserted_at
    from assertion_rows join numbers using (media_sha256)
    where method = 'machine' and layer_id = $layer and inference_key = $key order by n
"""
_LAYER_ROWS = """
    create view layer_rows as
    with newest as (
        from below_n where n between getvariable('first') and getvariable('last')
        qualify row_number() over (
            partition by position, n, rank order by asserted_at desc, assertion_id desc) = 1)
    select n as media_sha256, * from newest where action <> 'withdraw';
"""
"""Rows of a part for archive/annotations/annotations.sql, with numbers of images in place of digests."""
_PART = """
    with i as (
            select rowid as n, * from images
            where rowid between getvariable('first') and getvariable('last')),
        b as (from boxes_n where n between getvariable('first') and getvariable('last')),
        l as (select media_sha256 as n, * from layered),
        g as (select media_sha256 as n, event_id from image_groups),
        h as (from annotated_n where n between getvariable('first') and getvariable('last')),
        t as (from said_n where n between getvariable('first') and getvariable('last')),
        a as (from classified_n where n between getvariable('first') and getvariable('last'))
    select i.* exclude (n, part_of), b.rank, coalesce(l.label, b.label) as label,
        coalesce(l.score, b.score)::float as score, b.x1_px::double as x1_px, b.y1_px::double as y1_px,
        b.x2_px::double as x2_px, b.y2_px::double as y2_px, h.action is not null as human, l.group_id, g.event_id,
        coalesce(l.hidden, false) or coalesce(h.action = 'suppress', false) as hidden_below, l.determined_by,
        t.assertion_id as standing_id, t.action as standing_action, t.label as standing_label,
        t.score as standing_score, e.assertion_id as image_standing_id, a.logits
    from i left join b using (n)
        left join l on l.n = b.n and l.rank = b.rank
        left join h on h.n = b.n and h.rank = b.rank
        left join t on t.n = b.n and t.rank = b.rank
        left join a on a.n = b.n and a.rank = b.rank
        left join g on g.n = i.n
        left join t e on e.n = i.n and e.rank is null
    order by i.n, b.rank
"""
_CUTS = """
    with sized as (
        select i.rowid as n, i.part_of, greatest(1, coalesce(k, 0)) as size
        from images i left join (select n, count(*) as k from boxes_n group by n) c on c.n = i.rowid),
    placed as (
        select n, part_of, lag(part_of) over (order by n) as before, sum(size) over (order by n) - size as first
        from sized)
    select min(n) from placed {where} group by first // $rows order by 1
"""
_CUT_WHERE: dict[Context, str] = {"image": "", "camera": "where part_of is distinct from before"}


def number(sql: duckdb.DuckDBPyConnection, context: Context) -> None:
    """Create the tables images, numbers and boxes_n. `part_of` is the camera (or folder, if unknown) that a part
    keeps whole; null for context `image`.
    """
    group = "null" if context == "image" else "c.unknown::text || c.place"
    sql.execute(_IMAGES.format(group=group))


def number_layers(sql: duckdb.DuckDBPyConnection, inference_key: str, below: Sequence[Layer]) -> None:
    """Create below_n: every assertion of these layers on the images; `layered` has the current ones of a part."""
    sql.execute(_BELOW)
    for position, layer in enumerate(below):
        values = {"layer": layer.layer_id, "groups": layer.groups, "key": inference_key}
        sql.execute(_INSERT_LAYER, values | {"position": position, "layers": len(below)})
    sql.execute(_LAYER_ROWS)
    for name in ("layered", "image_groups"):
        sql.execute(ANNOTATIONS.statements[name])


def also_numbered(sql: duckdb.DuckDBPyConnection) -> None:
    """Create `annotated_n`, `said_n` and `classified_n` from `annotated`, `said_by_layer` and `classified`."""
    for name, query in _NUMBERED.items():
        sql.execute(f"create table {name} as {query}")


def cuts(sql: duckdb.DuckDBPyConnection, context: Context, rows: int) -> tuple[int, ...]:
    """Return the numbers of the first images of parts of about `rows` rows."""
    statement = _CUTS.format(where=_CUT_WHERE[context])
    return tuple(int(row[0]) for row in sql.execute(statement, {"rows": rows}).fetchall())


def part(sql: duckdb.DuckDBPyConnection, first: int, last: int, with_logits: bool) -> pa.Table:
    """Return the rows of images `first` to `last`, both included, in schema PART; LOGITS is appended if requested."""
    sql.execute("set variable first = $first", {"first": first})
    sql.execute("set variable last = $last", {"last": last})
    table = sql.sql(_PART).to_arrow_table()
    schema = PART.append(LOGITS) if with_logits else PART
    return table.select(schema.names).cast(schema)
