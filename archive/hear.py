"""What people say of the detections of one inference key: each box that they drew or named finds its detection.

relations `boxes` (media_sha256, rank, x1_px …) and `assertion_rows` --hear--> `heard` (a row for each detection that
a person speaks of), `added` (animals that people added and no detection covers), `orphaned` (what else is said of a box
that no detection covers), and `standing` (archive/assertions.py)

What a person said of a box holds for the detection that it names, else for the one that covers it best, whichever model
found that: IoU >= ATTACH_IOU. If two boxes that both stand, and so are about two things, attach to one detection, the
better covered one holds. That an image is empty holds for all detections in it that nothing else is said of.
"""

from __future__ import annotations

import duckdb

from archive.assertions import ATTACH_IOU, IOU, stand
from archive.literal import literal

_HEARD = """
    create or replace view attached as
    with touching as (
        select s.assertion_id, s.action, s.label, s.actor, s.reason, s.asserted_at, b.media_sha256, b.rank,
            coalesce(s.inference_key = {key} and s.rank = b.rank, false) as named,
            {iou}
        from standing s join boxes b on b.media_sha256 = s.media_sha256 where s.x1_px is not null),
    best as (
        from touching where iou >= {least} and not isnan(iou) or named
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


def hear(sql: duckdb.DuckDBPyConnection, inference_key: str) -> None:
    """Make the relations; all but `standing` are views. `inference_key` is that of `boxes`."""
    stand(sql)
    sql.execute(
        _HEARD.format(key=literal(inference_key), least=ATTACH_IOU, iou=IOU.format(a="s", b="b"))
    )
