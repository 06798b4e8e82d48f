-- Relations of `resight sql` over the tables, which are registered as `media_table`, `results_table` …
-- Reads `label_thresholds` (label, score), the variables `inference_key` (null: nothing is published) and `threshold`,
-- and `images` (archive/catalogue/images.py). archive/annotations/annotations.sql has the other relations.

create or replace temp view media as
    select * replace (captured_at_local::timestamp as captured_at_local) from media_table;

create or replace temp view all_results as from results_table;
create or replace temp view assertions as from assertions_table;
create or replace temp view assertion_rows as from assertions_table;
create or replace temp view decisions as from decisions_table;
create or replace temp view exports as from exports_table;
create or replace temp view snips as from snips_table;
create or replace temp view layers as from layers_table;
create or replace temp view classifications as from classifications_table;
create or replace temp view embeddings as from embeddings_table;
create or replace temp view views as from views_table;

-- The last event of each run.
create or replace temp view runs as
    select * exclude (event),
        min(event_at) over (partition by run_id) as started_at,
        if(state = 'running' and event_at < now() - interval 5 minutes, 'interrupted', state) as state_now
    from runs_table
    qualify row_number() over (partition by run_id order by event desc) = 1;

-- The results of the view, with the model's own status.
create or replace temp view seen as from results_table where inference_key = getvariable('inference_key');

create or replace temp view boxes as
    with flat as (select media_sha256, unnest(detections) as d from seen)
    select media_sha256, d.rank, d.label, d.score, d.x1_px, d.y1_px, d.x2_px, d.y2_px from flat;

create or replace temp view all_detections as
    with flat as (
        select inference_key, media_sha256, run_id, model_name, model_version, weights_sha256,
            width_px, height_px, unnest(detections) as d
        from results_table
    )
    select m.source_root, m.path, m.camera_id, m.captured_at_local, m.captured_at_corrected, m.captured_at_utc,
        f.media_sha256, f.inference_key, f.model_name, f.model_version, f.weights_sha256, f.run_id,
        f.d.rank, f.d.label, f.d.class_id, f.d.score,
        f.d.x1_px, f.d.y1_px, f.d.x2_px, f.d.y2_px,
        f.d.x1_px / f.width_px as x_frac, f.d.y1_px / f.height_px as y_frac,
        (f.d.x2_px - f.d.x1_px) / f.width_px as w_frac,
        (f.d.y2_px - f.d.y1_px) / f.height_px as h_frac,
        f.d.mask_area_px, f.d.mask_rle
    from flat f join images m using (media_sha256);

-- The class of each label that people or layers give, if it is one of the model.
create or replace temp view class_ids as
    with flat as (select unnest(detections) as d from seen)
    select d.label as label, min(d.class_id) as class_id from flat
    where d.label in (select label from assertion_rows where action in ('relabel', 'add')) group by d.label;

-- The detections of the view after layers and people, also hidden ones and those below the thresholds.
-- DuckDB omits joins without selected columns.
create or replace temp view resolved_detections as
    select d.* replace (
            coalesce(r.label, d.label) as label,
            if(coalesce(r.label, d.label) = d.label, d.class_id, c.class_id) as class_id,
            coalesce(r.score, d.score) as score),
        d.label as model_label, d.score as model_score, r.score_semantics, r.said_by, r.reason,
        g.event_id, r.occurrence_id, r.slot_id, r.determined_by,
        coalesce(r.hidden, false) as is_hidden, coalesce(r.human, false) as is_human
    from all_detections d
        left join resolved r on r.media_sha256 = d.media_sha256 and r.rank = d.rank
        left join image_groups g on g.media_sha256 = d.media_sha256
        left join class_ids c on c.label = r.label
    where d.inference_key = getvariable('inference_key');

-- Scores and thresholds are compared as 32-bit numbers, as in model_store/transform/thresholds.py, so that a score of 0.7
-- reaches a threshold of 0.7. A detection that a person keeps is shown with any score.
create or replace temp macro is_shown(is_hidden, is_human, score, min_score) as
    not is_hidden and (is_human or score >= coalesce(min_score, getvariable('threshold')::float));

create or replace temp view detections as
    select d.* exclude (is_hidden, is_human, determined_by)
    from resolved_detections d left join label_thresholds t using (label)
    where is_shown(is_hidden, is_human, d.score, t.score)
    union all by name
    select m.source_root, m.path, m.camera_id, m.captured_at_local, m.captured_at_corrected, m.captured_at_utc,
        a.media_sha256,
        a.label, c.class_id, a.x1_px, a.y1_px, a.x2_px, a.y2_px,
        a.x1_px / m.width_px as x_frac, a.y1_px / m.height_px as y_frac,
        (a.x2_px - a.x1_px) / m.width_px as w_frac, (a.y2_px - a.y1_px) / m.height_px as h_frac,
        'human' as score_semantics, 'human' as said_by, a.reason, g.event_id
    from added a join images m using (media_sha256)
    left join image_groups g on g.media_sha256 = a.media_sha256
    left join class_ids c on c.label = a.label;

create or replace temp view hidden as
    select * exclude (is_hidden, is_human, determined_by) from resolved_detections where is_hidden;

create or replace temp view results as
    with shown as (
        select media_sha256 from boxes b left join resolved r using (media_sha256, rank)
            left join label_thresholds t on t.label = coalesce(r.label, b.label)
        where is_shown(
            coalesce(r.hidden, false), coalesce(r.human, false), coalesce(r.score, b.score), t.score)
        union all select media_sha256 from added),
    counts as (select media_sha256, count(*) as n from shown group by media_sha256)
    select s.* replace (
        case when status = 'failed' then status when n > 0 then 'ok' else 'empty' end as status)
    from seen s left join counts c on c.media_sha256 = s.media_sha256;

create or replace temp view events as
    with frames as (
        select g.event_id, g.event_note, media_sha256, m.camera_id, d.captured_at_corrected, d.light, d.light_by
        from image_groups g join images m using (media_sha256) join image_deployments d using (media_sha256)),
    counts as (
        select event_id, label, media_sha256, count(*) as n from detections where event_id is not null group by all),
    most as (select event_id, label, max(n) as n from counts group by all),
    max_n as (select event_id, map_from_entries(list((label, n) order by label)) as max_n from most group by event_id)
    select event_id, min(camera_id) as camera_id, min(captured_at_corrected) as start_local,
        max(captured_at_corrected) as end_local, count(*) as n_images,
        arg_min(light, captured_at_corrected) as light, arg_min(light_by, captured_at_corrected) as light_by,
        string_agg(distinct nullif(event_note, ''), '; ') as notes, any_value(max_n) as max_n
    from frames left join max_n using (event_id) group by event_id;

create or replace temp view occurrences as
    with members as (from detections where occurrence_id is not null),
    votes as (
        select occurrence_id, label, sum(score) as weight, max(score) as best,
            bool_or(coalesce(said_by = 'human', false)) as by_person
        from members group by all)
    select occurrence_id, min(event_id) as event_id, min(camera_id) as camera_id,
        min(captured_at_corrected) as start_local, max(captured_at_corrected) as end_local,
        count(*) as n_detections, any_value(v.label) as label, any_value(v.best) as score
    from members join (
        from votes qualify row_number() over (
            partition by occurrence_id order by by_person desc, weight desc, label) = 1) v using (occurrence_id)
    group by occurrence_id;

-- One row per clip, with the determination of its frames. Of clips with the same bytes, the first catalogued counts.
create or replace temp view clips as
    with frames as (from images where clip_sha256 is not null),
    found as (select f.clip_sha256, d.* from detections d join frames f using (media_sha256)),
    votes as (
        select clip_sha256, label, coalesce(sum(score), 0) as weight, max(score) as best,
            bool_or(coalesce(said_by = 'human', false)) as by_person
        from found group by clip_sha256, label
        qualify row_number() over (partition by clip_sha256 order by by_person desc, weight desc, label) = 1),
    counts as (select clip_sha256, label, media_sha256, count(*) as n from found group by all),
    most as (select clip_sha256, label, max(n) as n from counts group by all),
    max_n as (select clip_sha256, map_from_entries(list((label, n) order by label)) as max_n from most group by all),
    tracks as (
        select clip_sha256, count(distinct occurrence_id) as n_tracks, count(*) as n_detections from found group by all),
    sampled as (
        select f.clip_sha256, min(f.captured_at_corrected) as start_local, count(*) as n_frames,
            count(r.media_sha256) filter (r.status <> 'failed') as n_seen,
            count(*) filter (r.status = 'failed') as n_failed, min(g.event_id) as event_id
        from frames f left join results r using (media_sha256) left join image_groups g using (media_sha256)
        group by f.clip_sha256)
    select c.media_sha256 as clip_sha256, c.source_root, c.path, c.camera_id, s.start_local, c.duration_ms, c.frame_rate,
        c.frame_count, coalesce(s.n_frames, 0) as n_frames, coalesce(s.n_failed, 0) as n_failed,
        case when v.label is not null then 'ok' when s.n_seen > 0 then 'empty'
            when s.n_failed > 0 or c.frame_count = 0 then 'failed'
            else 'missing' end as status,
        v.label, v.best as score, coalesce(t.n_detections, 0) as n_detections, coalesce(t.n_tracks, 0) as n_tracks,
        m.max_n, s.event_id, c.header_error
    from media c left join sampled s on s.clip_sha256 = c.media_sha256 left join votes v on v.clip_sha256 = c.media_sha256
        left join tracks t on t.clip_sha256 = c.media_sha256 left join max_n m on m.clip_sha256 = c.media_sha256
    where c.missing_since is null and c.frame_count is not null
    qualify row_number() over (
        partition by c.media_sha256 order by coalesce(c.catalogued_at, c.ingested_at), c.source_root, c.path) = 1;

-- The valid row of each camera, location and deployment.
create or replace temp view valid_facts as
    from (from deployments_table qualify row_number() over (partition by kind, fact_id order by change desc) = 1)
    where not deleted;

create or replace temp view deployments as
    select d.fact_id as deployment_id, d.camera_id, d.location, coalesce(d.latitude, l.latitude) as latitude,
        coalesce(d.longitude, l.longitude) as longitude, d.from_local::timestamp as from_local,
        d.until_local::timestamp as until_local, d.time_zone, d.clock_offset_s, d.clock_stated_by, d.clock_reason,
        d.notes, d.actor, d.stated_at
    from valid_facts d left join valid_facts l on l.kind = 'location' and l.fact_id = d.location
    where d.kind = 'deployment';

-- The images, with `taken_at`: the corrected time, null if it is doubtful (`timestamp_flags`) and its clock not corrected.
create or replace temp view dated as
    select *, coalesce(len(timestamp_flags), 0) > 0
            and captured_at_corrected is not distinct from captured_at_local as doubtful,
        if(doubtful, null, captured_at_corrected) as taken_at from images;

-- The period of each deployment. It ends where the next one of its camera begins, also if other programs stored overlaps.
create or replace temp view deployment_periods as
    select * replace (
            least(coalesce(until_local, 'infinity'), lead(from_local, 1, 'infinity'::timestamp)
                over (partition by camera_id order by from_local, deployment_id)) as until_local),
        zone_offset_s(time_zone, corrected(from_local, clock_offset_s)) as utc_offset_s
    from deployments;

create or replace temp view wrong_clocks as from deployment_periods where clock_offset_s <> 0;

-- A camera's time with the offset that people stated, within the years of ISO 8601; damaged files have any year.
create or replace temp macro corrected(taken, offset_s) as
    case when taken is null or offset_s is null then taken
        else greatest(least(taken + to_seconds(offset_s), timestamp '9999-12-31'), timestamp '0001-01-01') end;

-- Each image with the deployment of its camera at its time, and the light then (archive/views/sun.sql).
create or replace temp view image_deployments as
    with placed as (
        select m.media_sha256, p.deployment_id, p.location, p.latitude, p.longitude, p.time_zone,
            corrected(m.captured_at_local, p.clock_offset_s) as captured_at_corrected,
            utc_of(m.captured_at_utc, m.captured_at_local, captured_at_corrected, p.utc_offset_s) as utc
        from images m left join deployment_periods p on p.camera_id = m.camera_id
            and p.from_local <= m.captured_at_local and m.captured_at_local < p.until_local),
    hours as (select *, solar_hour(longitude, utc) as solar_hour from placed),
    suns as (select *, light_by_sun(sun_altitude(latitude, utc, solar_hour), solar_hour) as sunlight from hours)
    select * exclude (utc, solar_hour, sunlight), coalesce(sunlight, light_by_clock(captured_at_corrected)) as light,
        if(sunlight is null, if(light is null, null, 'hours'), 'sun') as light_by, solar_hour
    from suns;
