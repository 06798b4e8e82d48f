-- Individuals and their sightings, after the statements of people (archive/annotations/individuals.py).
-- Reads `individuals_table`, `images`, `dated`, and the relations of annotations.sql for the boxes of a key.

-- Statements that count: the newest row about a batch decides whether it is withdrawn.
create or replace temp view valid_statements as
    with undone as (
        select withdraws from individuals_table where withdraws is not null
        group by withdraws having arg_max(action, (stated_at, statement_id)) = 'withdraw')
    select *, (stated_at, statement_id) as moment from individuals_table
    where withdraws is null and batch_id not in (from undone);

-- The newest value of each field; an empty text clears it.
create or replace temp view profiles as
    select individual_id, nullif(arg_max(name, moment), '') as name, nullif(arg_max(species, moment), '') as species,
        nullif(arg_max(sex, moment), '') as sex, nullif(arg_max(notes, moment), '') as notes,
        coalesce(arg_max(retired, moment), false) as retired, nullif(arg_max(merged_into, moment), '') as merged_into,
        bool_or(action = 'profile') as described
    from valid_statements group by individual_id;

-- Each merged individual, and the one that it is in the end.
create or replace temp view merged_individuals as
    with recursive steps as (
        select individual_id, merged_into from profiles where merged_into is not null
        union
        select s.individual_id, p.merged_into from steps s join profiles p on p.individual_id = s.merged_into
        where p.merged_into is not null)
    select s.individual_id, s.merged_into as same_as from steps s join profiles p on p.individual_id = s.merged_into
    where p.merged_into is null;

-- Statements about detections, each with the detection of the view that covers its box best, if one does.
create or replace temp view placed_statements as
    with touching as (
        select s.statement_id, b.rank,
            iou(s.x1_px, s.y1_px, s.x2_px, s.y2_px, b.x1_px, b.y1_px, b.x2_px, b.y2_px) as iou,
            coalesce(s.inference_key = getvariable('inference_key') and s.rank = b.rank, false) as named
        from valid_statements s join boxes b on b.media_sha256 = s.media_sha256),
    best as (
        select statement_id, rank as view_rank from touching where named or is_same_box(iou)
        qualify row_number() over (partition by statement_id order by named desc, iou desc, rank) = 1)
    select s.*, view_rank, coalesce(same_as, individual_id) as identity
    from valid_statements s left join best using (statement_id) left join merged_individuals using (individual_id)
    where s.media_sha256 is not null;

-- The newest identity of each box, unless it was rejected later. Boxes that the view lacks are compared with each other.
create or replace temp view identities as
    from placed_statements n where action = 'identify' and not exists (
        select 1 from placed_statements r where r.media_sha256 = n.media_sha256 and r.moment > n.moment
            and (r.action = 'identify' or r.identity = n.identity)
            and coalesce(r.view_rank = n.view_rank, is_same_thing(
                r.inference_key, r.rank, r.x1_px, r.y1_px, r.x2_px, r.y2_px,
                n.inference_key, n.rank, n.x1_px, n.y1_px, n.x2_px, n.y2_px)));

-- Each identified box, unless a person or a layer hides it; `rank` is null if no detection of the view covers it.
create or replace temp view sightings as
    select n.identity as individual_id, p.name, m.camera_id, m.captured_at_corrected, m.source_root, m.path,
        n.media_sha256, n.view_rank as rank, n.media_sha256 || '-' || n.view_rank as detection_id,
        coalesce(r.label, b.label) as label, n.x1_px, n.y1_px, n.x2_px, n.y2_px, g.event_id, n.actor, n.stated_at
    from identities n join images m on m.media_sha256 = n.media_sha256
        left join profiles p on p.individual_id = n.identity
        left join boxes b on b.media_sha256 = n.media_sha256 and b.rank = n.view_rank
        left join resolved r on r.media_sha256 = n.media_sha256 and r.rank = n.view_rank
        left join image_groups g on g.media_sha256 = n.media_sha256
    where not coalesce(r.hidden, false);

create or replace temp view individuals as
    with counts as (
        select individual_id, count(*) as crops, count(distinct s.camera_id) as cameras,
            min(taken_at) as first_seen_local, max(taken_at) as last_seen_local,
            (list(detection_id order by stated_at desc, detection_id) filter (detection_id is not null))[:3] as examples
        from sightings s join dated d on d.media_sha256 = s.media_sha256 group by individual_id)
    select individual_id, p.name, p.species, p.sex, p.notes, p.retired, p.merged_into, coalesce(crops, 0) as crops,
        coalesce(cameras, 0) as cameras, first_seen_local, last_seen_local, examples
    from profiles p left join counts using (individual_id);
