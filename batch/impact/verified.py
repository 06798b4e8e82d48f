"""What people said, held against both sides.

standing human assertions, old_boxes, new_boxes --hold_against--> verdicts
    (assertion_id, id, action, label, corners, old, new: right | wrong | unseen; contradicted, lost)
right    keep, relabel: a shown box of that label with IoU >= MATCH_IOU
         suppress: no shown box with IoU >= MATCH_IOU, those aside that lie as well on a box that people confirmed
         suppress without a box: nothing is shown in the image
unseen   the side has no result for the image, or a failed one
"""

from __future__ import annotations

import duckdb

from archive.assertions import make_standing
from archive.tables import Tables
from batch.impact.match import IOU
from serve.agreement import MATCH_IOU

_SAID = """
    create table said as
    select assertion_id, md5_number(media_sha256) as id, media_sha256, action, label, actor, reason,
        x1_px as x1, y1_px as y1, x2_px as x2, y2_px as y2
    from standing where md5_number(media_sha256) in (select id from images)
"""
_ON = f"""
    create table {{side}}_on as
    with touching as (
        select id, assertion_id, action, s.label = b.label as same, rank,
            {IOU.format(a="s", b="b")}
        from said s join {{side}}_boxes b using (id))
    select id, assertion_id, action, same, rank, iou from touching where iou >= {MATCH_IOU};
    create table {{side}}_verdicts as
    with claims as (
        select id, rank, max(iou) as iou from {{side}}_on where action <> 'suppress' group by id, rank),
    found as (
        select assertion_id,
            bool_or(action <> 'suppress' and same) as confirmed,
            bool_or(action = 'suppress' and coalesce(c.iou < o.iou, true)) as again
        from {{side}}_on o left join claims c using (id, rank) group by assertion_id),
    shown as (select distinct id from {{side}}_boxes)
    select assertion_id, case
        when coalesce({{side}}_failed, true) then 'unseen'
        when case when action <> 'suppress' then coalesce(confirmed, false)
            when x1 is null then id not in (select id from shown)
            else not coalesce(again, false) end then 'right'
        else 'wrong' end as verdict
    from said join images using (id) left join found using (assertion_id);
"""
_VERDICTS = """
    create table verdicts as
    select said.*, o.verdict as old, n.verdict as new, n.verdict = 'wrong' as contradicted,
        o.verdict = 'right'
            and (n.verdict = 'wrong' or (n.verdict = 'unseen' and action <> 'suppress')) as lost
    from said join old_verdicts o using (assertion_id) join new_verdicts n using (assertion_id)
"""


def hold_against(sql: duckdb.DuckDBPyConnection, tables: Tables) -> None:
    """Raises StorageUnreachable."""
    make_standing(sql, tables)
    sql.execute(_SAID)
    for side in ("old", "new"):
        sql.execute(_ON.format(side=side))
    sql.execute(_VERDICTS)
