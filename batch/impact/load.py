"""Both sides into a scratch database: the images they have in common, and what each shows of them.

results of two inference keys --load--> images (id, old_failed, new_failed, compared; null: no result),
old_boxes and new_boxes (id, rank, label, score, corners): what is shown; cameras (id, camera_id)
Only contents are counted of which a file is there: a file that is gone can be seen by no new run.
"""

from __future__ import annotations

import duckdb
import pyarrow as pa

from archive.images import images_of
from archive.scan import scan
from archive.schemas import MEDIA, RESULTS
from archive.tables import Tables
from batch.impact.sides import Side

_POPULATION = f"""
    create table cameras as
    select md5_number(media_sha256) as id, camera_id from {images_of("media")}
    where $all or media_sha256 in (select media_sha256 from asked);
"""
_SEEN = """
    create table {side}_seen as
    select md5_number(media_sha256) as id, media_sha256, status = 'failed' as failed
    from {side}_results where $all or media_sha256 in (select media_sha256 from asked);
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
    select id, d.rank, d.label, d.score, d.x1_px as x1, d.y1_px as y1, d.x2_px as x2, d.y2_px as y2
    from flat left join {side}_limits limits on d.label = limits.label
    where d.score >= coalesce(least, $threshold)::float
"""
"""Only the lists of images that are compared are taken apart: those of a sample are few."""


def load(
    sql: duckdb.DuckDBPyConnection, tables: Tables, old: Side, new: Side, media: pa.Array | None
) -> None:
    """`media` are the digests to look at, None for all. Raises StorageUnreachable."""
    everything = {"all": media is None}
    asked = pa.array([], pa.string()) if media is None else media
    sql.register("asked", pa.table({"media_sha256": asked}))
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


def _limits(side: Side) -> pa.Table:
    labels = pa.array(list(side.label_thresholds), pa.string())
    least = pa.array(list(side.label_thresholds.values()), pa.float32())
    return pa.table({"label": labels, "least": least})
