"""Match human annotations to the detections of one inference key.

relations `boxes` (media_sha256, rank, x1_px …) and `assertion_rows` --`match_annotations`--> relations
- `heard`: one row per detection with an annotation
- `added`: animals that people added and no detection covers
- `orphaned`: other annotations of a box that no detection covers
- `standing`: the valid annotations (archive/annotations/assertions.py)

An annotation applies to the detection that it names. Otherwise it applies to the detection of any model that covers
its box best, with IoU >= ATTACH_IOU. If two valid boxes match one detection, the one with the higher IoU applies.
An annotation that an image is empty applies to all its detections without another annotation.
"""

from __future__ import annotations

import duckdb

from archive.annotations.assertions import ATTACH_IOU, IOU, stand
from archive.delta.sql_literal import literal

_HEARD = """
    create or replace view attached as
    with touching as (
        select s.assertion_id, s.action, s.label, s.actor, s.reason, s.asserted_at, b.media_sha256, b.rank,
            coalesce(s.inference_key = {key} and s.rank = b.rank, false) as named,
            {iou}
        from standing s join boxes b on b.media_sha256 = s.media_sha256 where s.x1_px is not null),
    best as (
        from touching where iou >= {min_iou} and not isnan(iou) or named
        qualify row_number() over (
            partition by assertion_id order by named desc, iou desc, rank) = 1)
    from best qualify row_number() over (
        partition by media_sha256, rank order by iou desc, asserted_at desc, assertion_id desc) = 1;
    create or replace view heard as
    select media_sha256, rank, action, label, actor, reason, assertion_id from attached
    union all
    select b.media_sha256, b.rank, 'suppress', null, s.actor, s.reason, s.assertion_id
    from boxes b join standing s on s.media_sha256 = b.media_sha256 and s.x1_px is null
        anti join attached a on a.media_sha256 = b.media_sha256 and a.rank = b.rank;
    create or replace view added as
    from standing where action = 'add' and assertion_id not in (select assertion_id from attached);
    create or replace view orphaned as
    select assertion_id, action, label, media_sha256, x1_px, y1_px, x2_px, y2_px, actor, asserted_at, reason,
        media_sha256 in (select media_sha256 from boxes) as other_boxes
    from standing where x1_px is not null and action <> 'add'
        and assertion_id not in (select assertion_id from attached);
"""


def match_annotations(sql: duckdb.DuckDBPyConnection, inference_key: str) -> None:
    """Create the relations: `standing` as a table, the others as views. `inference_key` is that of `boxes`."""
    stand(sql)
    iou = IOU.format(a="s", b="b")
    sql.execute(_HEARD.format(key=literal(inference_key), min_iou=ATTACH_IOU, iou=iou))
