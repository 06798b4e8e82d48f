-- Annotations of the boxes of one inference key, by people and by layers.
-- Reads `boxes` (media_sha256, rank, label, score, x1_px …), `assertion_rows`, `view_layers` (position, layer_id, groups),
-- and the variable `inference_key`.

-- Return the intersection over union of two boxes; they end at their corners, without an extra pixel. These macros take
-- columns: rows as arguments would have all of their columns at each use, which takes twice the time to plan.
create or replace temp macro iou(ax1, ay1, ax2, ay2, bx1, by1, bx2, by2) as
    greatest(0, least(ax2::double, bx2) - greatest(ax1::double, bx1))
        * greatest(0, least(ay2::double, by2) - greatest(ay1::double, by1))
    / nullif((ax2::double - ax1) * (ay2::double - ay1) + (bx2::double - bx1) * (by2::double - by1)
        - greatest(0, least(ax2::double, bx2) - greatest(ax1::double, bx1))
            * greatest(0, least(ay2::double, by2) - greatest(ay1::double, by1)), 0);

-- Minimum intersection over union of two boxes that refer to the same thing. No box with a value that is not finite has it.
create or replace temp macro is_same_box(iou) as iou >= 0.5 and not isnan(iou);

-- Return whether two rows are about the same detection of one model, or else about the same box.
create or replace temp macro is_same_thing(akey, arank, ax1, ay1, ax2, ay2, bkey, brank, bx1, by1, bx2, by2) as
    if(coalesce(akey = bkey, false), arank = brank,
        (ax1, ay1, ax2, ay2) = (bx1, by1, bx2, by2) or is_same_box(iou(ax1, ay1, ax2, ay2, bx1, by1, bx2, by2)));

-- The valid human assertions (`make_standing` in archive/annotations/assertions.py).
create or replace temp table standing as
    with human as (
        select * exclude (group_id, withdraws) from assertion_rows
        where method = 'human' and withdraws is null and action <> 'flag'
            and assertion_id not in (select withdraws from assertion_rows where withdraws is not null)),
    replaced as (
        select old.assertion_id
        from human old join human new on old.media_sha256 = new.media_sha256
            and (old.asserted_at, old.assertion_id) < (new.asserted_at, new.assertion_id)
        where old.x1_px is not null and new.x1_px is not null
            and (old.asserted_at < new.asserted_at
                or (old.x1_px, old.y1_px, old.x2_px, old.y2_px) = (new.x1_px, new.y1_px, new.x2_px, new.y2_px))
            and is_same_thing(
                old.inference_key, old.rank, old.x1_px, old.y1_px, old.x2_px, old.y2_px,
                new.inference_key, new.rank, new.x1_px, new.y1_px, new.x2_px, new.y2_px)),
    latest as (
        from human where assertion_id not in (select assertion_id from replaced)
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
        else emptied is null or (asserted_at, assertion_id) > emptied end;

-- Images with a flag that is newer than all other statements about them: a request to look at them.
create or replace temp table flags as
    select media_sha256, arg_max(assertion_id, (asserted_at, assertion_id)) as assertion_id from assertion_rows
    where method = 'human' and withdraws is null
        and assertion_id not in (select withdraws from assertion_rows where withdraws is not null)
    group by media_sha256 having arg_max(action, (asserted_at, assertion_id)) = 'flag';

-- The detection of each human assertion about a box (`match_annotations` in archive/annotations/assertions.py). A table,
-- as four relations read it: views are planned again at each place that reads them.
-- A box with an IoU of at least 0.98 is the box of the statement, as formats round corners. Others with at least 0.75
-- have one of at least 0.5 with each other, because 1 - IoU is a metric: they are claims about the same thing. Those
-- that no other statement covers better come first, as two overlapping boxes may be two things, then the highest score.
-- Models give one box several labels: of equal boxes, a relabel finds one with another label, others one with theirs.
create or replace temp table attached as
    with touching as (
        select s.assertion_id, s.action, s.label, s.actor, s.reason, s.asserted_at, b.media_sha256, b.rank,
            coalesce(s.label = b.label, false) as same_label,
            coalesce(s.inference_key = getvariable('inference_key') and s.rank = b.rank, false) as named,
            iou(s.x1_px, s.y1_px, s.x2_px, s.y2_px, b.x1_px, b.y1_px, b.x2_px, b.y2_px) as iou,
            case when iou >= 0.98 then 2 when iou >= 0.75 then 1 else 0 end as closeness,
            coalesce(iou = max(iou) filter (is_same_box(iou)) over (partition by b.media_sha256, b.rank), false)
                as covers_best,
            max(b.score) over (partition by s.assertion_id, b.x1_px, b.y1_px, b.x2_px, b.y2_px) as score
        from standing s join boxes b on b.media_sha256 = s.media_sha256 where s.x1_px is not null),
    best as (
        from touching where is_same_box(iou) or named
        qualify row_number() over (
            partition by assertion_id order by named desc, closeness desc, closeness = 1 and covers_best desc,
                if(closeness = 1, score, null) desc nulls last, iou desc, same_label = (action = 'relabel'), rank) = 1)
    from best qualify row_number() over (
        partition by media_sha256, rank
        order by iou desc, action = 'suppress', asserted_at desc, assertion_id desc) = 1;

-- One row per detection with a human annotation; an annotation that the image is empty applies to all others.
create or replace temp view annotated as
    select media_sha256, rank, action, label, actor, reason, assertion_id from attached
    union all
    select b.media_sha256, b.rank, 'suppress', null, s.actor, s.reason, s.assertion_id
    from boxes b join standing s on s.media_sha256 = b.media_sha256 and s.x1_px is null
        anti join attached a on a.media_sha256 = b.media_sha256 and a.rank = b.rank;

-- Animals that people added and no detection covers.
create or replace temp view added as
    from standing where action = 'add' and assertion_id not in (select assertion_id from attached);

-- Other annotations of a box that no detection covers.
create or replace temp view orphaned as
    select assertion_id, action, label, media_sha256, x1_px, y1_px, x2_px, y2_px, actor, asserted_at, reason,
        media_sha256 in (select media_sha256 from boxes) as other_boxes
    from standing where x1_px is not null and action <> 'add'
        and assertion_id not in (select assertion_id from attached);

-- The newest row of each layer of the view about each image or detection.
create or replace temp view layer_rows as
    with newest as (
        select a.* from assertion_rows a where method = 'machine' and inference_key = getvariable('inference_key')
            and layer_id in (select layer_id from view_layers)
        qualify row_number() over (
            partition by layer_id, media_sha256, rank order by asserted_at desc, assertion_id desc) = 1)
    select newest.*, position, groups,
        position + if(action = 'suppress', (select count(*) from view_layers), 0) as weight
    from newest join view_layers using (layer_id) where action <> 'withdraw';

-- What the layers together assert about each detection.
create or replace temp view layered as
    select media_sha256, rank,
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
    from layer_rows where rank is not null group by media_sha256, rank;

-- The event of each image.
create or replace temp view image_groups as
    select media_sha256, arg_max(group_id, position) as event_id, arg_max(reason, position) as event_note
    from layer_rows where rank is null and groups = 'event' group by media_sha256;

-- One row per detection with an assertion: a person overrides all layers.
create or replace temp view resolved as
    select coalesce(l.media_sha256, h.media_sha256) as media_sha256, coalesce(l.rank, h.rank) as rank,
        coalesce(h.action = 'suppress', l.hidden, false) as hidden,
        coalesce(if(h.action <> 'suppress', h.label, null), l.label) as label,
        l.score, if(h.action is not null, 'human', l.score_semantics) as score_semantics,
        h.action is not null as human,
        if(h.action is not null, 'human', l.said_by) as said_by,
        if(h.action is not null, h.reason, l.reason) as reason,
        coalesce(h.assertion_id, l.determined_by) as determined_by,
        l.group_id, l.occurrence_id, l.slot_id
    from layered l full join annotated h on l.media_sha256 = h.media_sha256 and l.rank = h.rank;
