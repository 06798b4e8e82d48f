"""What a view shows of a detection: the model's own word, the layers over it, and people above all.

relations `boxes` (media_sha256, rank, label, score, x1_px …) and `assertion_rows`, of one inference key
--resolve--> `resolved` (a row for each detection that something is said about), `image_groups`, `orphaned`

A later layer outranks an earlier one, a person every layer. What a person said of a box holds for the detection that
it names, else for the one that covers it best, whichever model found that: IoU >= ATTACH_IOU; where none does it is an
orphan. Of two people's boxes on one detection the better one holds. What is hidden is said by the layer that hides it.
"""

from __future__ import annotations

from collections.abc import Sequence

import duckdb

from archive.assertions import stand
from archive.layers import Layer, holds

ATTACH_IOU = 0.5
_LAYER_SAID = """
    create or replace {kind} layer_said as
    with chosen(position, layer_id, groups) as (values {layers}),
    newest as (
        select a.* from assertion_rows a where method = 'machine' and inference_key = {key}
            and layer_id in (select layer_id from chosen)
        {holds})
    select newest.*, position, groups,
        position + if(action = 'suppress', (select count(*) from chosen), 0) as weight
    from newest join chosen using (layer_id) where action <> 'withdraw';
"""
OF_DETECTION = """
        bool_or(action = 'suppress') as hidden,
        arg_max(label, position) filter (action = 'relabel') as label,
        arg_max(score, position) filter (action in ('relabel', 'rescore')) as score,
        arg_max(score_semantics, position) filter (action in ('relabel', 'rescore')) as score_semantics,
        arg_max(layer_id, weight) filter (action <> 'group') as said_by,
        arg_max(reason, weight) filter (action <> 'group') as reason,
        arg_max(assertion_id, weight) filter (action <> 'group') as determined_by,
        arg_max(group_id, position) as group_id,
        arg_max(group_id, position) filter (groups = 'occurrence') as occurrence_id,
        arg_max(group_id, position) filter (groups = 'slot') as slot_id
"""
"""What the layers below say of one detection together, of rows with `position` and `weight`; grouped by detection."""
OF_IMAGE = "arg_max(group_id, position) as event_id, arg_max(reason, position) as event_note"
_LAYERED = """
    create or replace {kind} layered as
    select media_sha256, rank, {of_detection}
    from layer_said where rank is not null group by media_sha256, rank;
    create or replace {kind} image_groups as
    select media_sha256, {of_image}
    from layer_said where rank is null and groups = 'event' group by media_sha256;
"""
_HEARD = """
    create or replace {kind} attached as
    with touching as (
        select s.assertion_id, s.action, s.label, s.actor, s.reason, s.asserted_at, b.media_sha256, b.rank,
            coalesce(s.inference_key = {key} and s.rank = b.rank, false) as named,
            greatest(0, least(s.x2_px::double, b.x2_px) - greatest(s.x1_px::double, b.x1_px))
                * greatest(0, least(s.y2_px::double, b.y2_px) - greatest(s.y1_px::double, b.y1_px)) as shared,
            (s.x2_px::double - s.x1_px) * (s.y2_px::double - s.y1_px)
                + (b.x2_px::double - b.x1_px) * (b.y2_px::double - b.y1_px) - shared as either,
            shared / nullif(either, 0) as iou
        from standing s join boxes b on b.media_sha256 = s.media_sha256 where s.x1_px is not null),
    best as (
        from touching where iou >= {least} and not isnan(iou) or named
        qualify row_number() over (
            partition by assertion_id order by named desc, iou desc, rank) = 1)
    from best qualify row_number() over (
        partition by media_sha256, rank order by iou desc, asserted_at desc, assertion_id desc) = 1;
    create or replace {kind} heard as
    select media_sha256, rank, action, label, actor, reason, assertion_id from attached
    union all
    select b.media_sha256, b.rank, 'suppress', null, s.actor, s.reason, s.assertion_id
    from boxes b join standing s on s.media_sha256 = b.media_sha256 and s.x1_px is null
        anti join attached a on a.media_sha256 = b.media_sha256 and a.rank = b.rank;
    create or replace {kind} orphaned as
    select assertion_id, action, label, media_sha256, x1_px, y1_px, x2_px, y2_px, actor, asserted_at, reason,
        media_sha256 in (select media_sha256 from boxes) as other_boxes
    from standing where x1_px is not null
        and assertion_id not in (select assertion_id from attached);
"""
_RESOLVED = """
    create or replace {kind} resolved as
    select coalesce(l.media_sha256, h.media_sha256) as media_sha256, coalesce(l.rank, h.rank) as rank,
        case h.action when 'suppress' then true when 'keep' then false when 'relabel' then false
            else coalesce(l.hidden, false) end as hidden,
        coalesce(if(h.action in ('keep', 'relabel'), h.label, null), l.label) as label,
        l.score, if(h.action is not null, 'human', l.score_semantics) as score_semantics,
        h.action is not null as human,
        if(h.action is not null, 'human', l.said_by) as said_by,
        if(h.action is not null, h.reason, l.reason) as reason,
        coalesce(h.assertion_id, l.determined_by) as determined_by,
        l.group_id, l.occurrence_id, l.slot_id
    from layered l full join heard h on l.media_sha256 = h.media_sha256 and l.rank = h.rank;
"""
_NO_LAYER = "(-1, '', null::varchar)"


def resolve(
    sql: duckdb.DuckDBPyConnection, inference_key: str, layers: Sequence[Layer], kind: str = "view"
) -> None:
    """Make the relations; `kind` is `view`, or `temp table` for those who read them more than once.

    Relation `standing` (archive/assertions.py) is made besides.
    """
    stand(sql)
    listed = ", ".join(
        f"({place}, {_quoted(one.layer_id)}, {_quoted(one.groups) if one.groups else 'null'})"
        for place, one in enumerate(layers)
    )
    words = {
        "kind": kind,
        "key": _quoted(inference_key),
        "layers": listed or _NO_LAYER,
        "holds": holds("layer_id, media_sha256, rank"),
        "least": ATTACH_IOU,
        "of_detection": OF_DETECTION,
        "of_image": OF_IMAGE,
    }
    for statements in (_LAYER_SAID, _LAYERED, _HEARD, _RESOLVED):
        sql.execute(statements.format(**words))


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
