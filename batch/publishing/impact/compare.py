"""Compare two sides in a scratch database that exists as long as the Comparison: match their boxes one to one.

tables, old, new, media --compared--> Comparison(impact; sql: the relations below, that samples are chosen from)

results of two inference keys --> images (id, old_failed, new_failed, compared; null: no result),
old_boxes and new_boxes (id, rank, label, score, corners): what is shown; cameras (id, camera_id)
Only contents with a present file count, because a new run cannot read a missing file.

old_boxes, new_boxes --> outcomes (id, kind, old_rank, new_rank, old_label, new_label, shift)
kind: matched (same label), relabelled (another label), lost (only old), new (only new)

Among the pairs of an image with IoU >= MATCH_IOU, the best pair of unmatched boxes is matched, repeatedly. Pairs
are ordered by same label, then IoU, then rank of the old box, then rank of the new box. A pair that is the best one
for both of its boxes always comes first among their pairs. All such pairs of all images are therefore matched at
once, and again among the rest until none is left; the result is the same as one pair at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from archive.annotations.assertions import ANNOTATIONS
from archive.catalogue.images import images_of
from archive.delta.scratch_db import LARGE_MIB, Scratch
from archive.delta.snapshot import scan
from archive.delta.tables import Tables
from archive.schemas import MEDIA, RESULTS
from batch.publishing.impact.measure import SHIFT_STEP, Impact, measure
from batch.publishing.impact.result_sets import ResultSet
from batch.publishing.impact.samples import hold_against
from serve.models.shadow import MATCH_IOU

MOST_AT_ONCE = 1_000_000
"""Images of which boxes are matched at once: the windows of more do not fit into LARGE_MIB, and spill in each round."""
_POPULATION = f"""
    create table cameras as
    select md5_number(media_sha256) as id, camera_id from {images_of("media")}
    where $all or media_sha256 in (select media_sha256 from requested);
"""
_SEEN = """
    create table {side}_seen as
    select md5_number(media_sha256) as id, media_sha256, status = 'failed' as failed
    from {side}_results where $all or media_sha256 in (select media_sha256 from requested);
"""
_IMAGES = """
    create table everywhere as
    select id, coalesce(o.media_sha256, n.media_sha256) as media_sha256, o.failed as old_failed,
        n.failed as new_failed, id in (select id from cameras) as there
    from old_seen o full join new_seen n using (id);
    create table images as
    select * exclude (there), (not old_failed and not new_failed) is true as compared
    from everywhere where there;
"""
_BOXES = """
    create table {side}_boxes as
    with flat as (
        select md5_number(media_sha256) as id, unnest(detections) as d from {side}_results
        where media_sha256 in (select media_sha256 from images))
    select id, d.rank, d.label, d.score, d.x1_px, d.y1_px, d.x2_px, d.y2_px
    from flat left join {side}_limits limits on d.label = limits.label
    where d.score >= coalesce(min_score, $threshold)::float
"""
"""Unnests only the detections of compared images; a sample has few of them."""
_PART = """
    create or replace table {side}_part as
    from {side}_boxes where id % {parts} = {part}
        and id in (select id from images where compared and id % {parts} = {part});
"""
_PAIRS = f"""
    create or replace table pairs as
    with touching as (
        select id, o.rank as old_rank, n.rank as new_rank, o.label = n.label as same,
            round((n.score::double - o.score) / {SHIFT_STEP})::integer as shift,
            iou(o.x1_px, o.y1_px, o.x2_px, o.y2_px, n.x1_px, n.y1_px, n.x2_px, n.y2_px) as iou
        from old_part o join new_part n using (id))
    select id, old_rank, new_rank, same, shift, iou from touching where iou >= {MATCH_IOU};
    create or replace table matches as from pairs limit 0;
"""
_BEST_FOR_BOTH = """
    create or replace temp table best as
    select id, old_rank, new_rank, same, shift, iou from pairs
    qualify row_number() over (
            partition by id, old_rank order by same desc, iou desc, new_rank) = 1
        and row_number() over (
            partition by id, new_rank order by same desc, iou desc, old_rank) = 1;
    insert into matches from best;
    create or replace table pairs as
    from pairs anti join best using (id, old_rank) anti join best using (id, new_rank);
"""
_OUTCOMES = """
    {into}
    select id, if(same, 'matched', 'relabelled') as kind, old_rank, new_rank,
        o.label as old_label, n.label as new_label, shift
    from matches join (select id, rank as old_rank, label from old_part) o using (id, old_rank)
        join (select id, rank as new_rank, label from new_part) n using (id, new_rank)
    union all
    select id, 'lost', rank, null, label, null, null from old_part o
    where not exists (from matches m where m.id = o.id and m.old_rank = o.rank)
    union all
    select id, 'new', null, rank, null, label, null from new_part n
    where not exists (from matches m where m.id = n.id and m.new_rank = n.rank)
"""


@dataclass(frozen=True)
class Comparison:
    impact: Impact
    sql: duckdb.DuckDBPyConnection


@contextmanager
def compared(tables: Tables, old: ResultSet, new: ResultSet, media: pa.Array | None = None) -> Iterator[Comparison]:
    """Yield the comparison of all images, or of those with a digest in `media`. Raises StorageUnreachable."""
    with closing(Scratch("impact", LARGE_MIB, in_order=False)) as scratch:
        sql = scratch.sql
        load(sql, tables, old, new, media)
        match(sql)
        hold_against(sql, tables)
        yield Comparison(measure(sql, old, new), sql)


def compare(tables: Tables, old: ResultSet, new: ResultSet, media: pa.Array | None = None) -> Impact:
    """Return only the facts of a comparison. Raises StorageUnreachable."""
    with compared(tables, old, new, media) as comparison:
        return comparison.impact


def load(
    sql: duckdb.DuckDBPyConnection, tables: Tables, old: ResultSet, new: ResultSet, media: pa.Array | None
) -> None:
    """Create the relations of both sides. `media` are the digests to load, None for all."""
    everything = {"all": media is None}
    requested = pa.array([], pa.string()) if media is None else media
    sql.register("requested", pa.table({"media_sha256": requested}))
    scan(sql, "media", tables.existing("media"), MEDIA)
    results = tables.existing("results")
    sql.execute(_POPULATION, everything)
    for name, side in (("old", old), ("new", new)):
        scan(sql, f"{name}_results", results, RESULTS, side.inference_key)
        sql.execute(_SEEN.format(side=name), everything)
    sql.execute(_IMAGES)
    for name, side in (("old", old), ("new", new)):
        sql.register(f"{name}_limits", _limits(side))
        sql.execute(_BOXES.format(side=name), {"threshold": side.threshold})


def _limits(side: ResultSet) -> pa.Table:
    labels = pa.array(list(side.label_thresholds), pa.string())
    min_scores = pa.array(list(side.label_thresholds.values()), pa.float32())
    return pa.table({"label": labels, "min_score": min_scores})


def match(sql: duckdb.DuckDBPyConnection) -> None:
    """Create the relation `outcomes` of old_boxes and new_boxes, MOST_AT_ONCE images at a time."""
    ANNOTATIONS.create(sql, "iou")
    ((images,),) = sql.execute("select count(*) from images").fetchall()
    parts = max(1, -(-images // MOST_AT_ONCE))
    for part in range(parts):
        for side in ("old", "new"):
            sql.execute(_PART.format(side=side, parts=parts, part=part))
        sql.execute(_PAIRS)
        while sql.execute("select count(*) from pairs").fetchall()[0][0]:
            sql.execute(_BEST_FOR_BOTH)
        sql.execute(_OUTCOMES.format(into="insert into outcomes" if part else "create table outcomes as"))
    sql.execute("drop table old_part; drop table new_part; drop table pairs; drop table matches")
