-- Rows of an image index, from the relations of views.sql and annotations.sql over the same tables.
-- archive/views/image_index_file.py stores them; archive/views/image_detail.py reads them for a few images.

-- All boxes of each image, also those that are not shown, and what determined them.
create or replace temp table box_rows as
    select d.media_sha256, d.inference_key, d.rank, d.label, d.model_label, d.score, d.model_score,
        d.x1_px, d.y1_px, d.x2_px, d.y2_px, d.x_frac, d.y_frac, d.w_frac, d.h_frac,
        is_shown(d.is_hidden, d.is_human, d.score, t.score) as is_shown, d.is_human, d.said_by, d.reason,
        d.determined_by as assertion_id
    from resolved_detections d left join label_thresholds t on t.label = d.label
    union all by name
    select a.media_sha256, a.label, a.x1_px, a.y1_px, a.x2_px, a.y2_px, a.x1_px / m.width_px as x_frac,
        a.y1_px / m.height_px as y_frac, (a.x2_px - a.x1_px) / m.width_px as w_frac,
        (a.y2_px - a.y1_px) / m.height_px as h_frac, true as is_shown, true as is_human, 'human' as said_by,
        a.reason, a.assertion_id
    from added a join images m using (media_sha256);

-- The labels that the view shows on each image. An animal that a person added has no score.
create or replace temp table shown_labels as
    select media_sha256, label, count(*)::integer as n, max(score) as score,
        arg_min(score, abs(score - 0.5)) as uncertain_score
    from box_rows where is_shown group by all;

-- Their sum for each image, and the outlines of up to ten boxes: one statement for both takes four times as long. The
-- outlines are those of one part of the images, because lists of groups stay in memory.
create or replace temp table labelled as
    select media_sha256, sum(n)::integer as n_boxes, max(score) as top_score,
        arg_max(label, (coalesce(score, -1), label)) as top_label,
        arg_min(uncertain_score, abs(uncertain_score - 0.5)) as uncertain_score
    from shown_labels group by media_sha256;

create or replace temp table outlined as
    select media_sha256, list({
        'label': label, 'x1': x_frac::float, 'y1': y_frac::float,
        'x2': (x_frac + w_frac)::float, 'y2': (y_frac + h_frac)::float, 'is_human': is_human
    } order by score desc nulls first)[:10] as boxes
    from box_rows where is_shown and x_frac + w_frac is not null and y_frac + h_frac is not null
        and hash(media_sha256) % getvariable('parts') = getvariable('part')
    group by media_sha256;

-- The images in page order, with a number that is larger than all of `first_id`. An image without a time has -infinity,
-- which sorts it last, like `nulls last` of a search.
create or replace temp table numbered as
    with moments as (
        select media_sha256, coalesce(captured_at_corrected, '-infinity'::timestamp) as moment, source_root, path from images)
    select media_sha256, moment,
        getvariable('first_id') + row_number() over (order by moment desc, source_root, path) as image_id
    from moments;

-- All columns of an image, of which `new_cells` are those of lists, and `new_details` what only its own page shows: both at
-- once, because relation `images` sorts all files.
create or replace temp table image_rows as
    select n.image_id, n.moment, i.media_sha256, i.captured_at_local, i.source_root, i.path, i.camera_id, p.deployment_id,
        p.location, i.width_px, i.height_px,
        case when r.status is null then 'missing' when r.status = 'failed' then r.status
            when l.n_boxes > 0 then 'ok' else 'empty' end as status,
        i.media_sha256 in (select media_sha256 from standing) as reviewed,
        i.media_sha256 in (select media_sha256 from flags) as flagged,
        coalesce(l.n_boxes, 0) as n_boxes, l.top_label, l.top_score, l.uncertain_score, g.event_id,
        coalesce(o.boxes, []) as boxes,
        i.size_bytes, i.camera_make, i.camera_model, i.camera_serial, i.camera_source, i.exif_orientation,
        i.timestamp_source, array_to_string(i.timestamp_flags, ', ') as timestamp_flags, i.media_type,
        r.error_code, r.error_detail, i.header_error, r.decode_note,
        r.model_name || '@' || r.model_version as model, r.run_id, r.inference_key
    from images i join numbered n on n.media_sha256 = i.media_sha256
        left join seen r on r.media_sha256 = i.media_sha256
        left join labelled l on l.media_sha256 = i.media_sha256
        left join outlined o on o.media_sha256 = i.media_sha256
        left join image_groups g on g.media_sha256 = i.media_sha256
        left join image_deployments p on p.media_sha256 = i.media_sha256;

create or replace temp view new_cells as
    select image_id, moment, media_sha256, captured_at_local, source_root, path, camera_id, deployment_id, location,
        width_px, height_px, status, reviewed, flagged, n_boxes, top_label, top_score, uncertain_score, event_id, boxes
    from image_rows;

create or replace temp view new_details as
    select image_id, size_bytes, camera_make, camera_model, camera_serial, camera_source, exif_orientation,
        timestamp_source, timestamp_flags, media_type, error_code, error_detail, header_error, decode_note, model, run_id,
        inference_key
    from image_rows;

-- Rows of the boxes of an image, its human statements and its files.
create or replace temp view new_boxes as
    select n.image_id, b.* exclude (media_sha256, x_frac, y_frac, w_frac, h_frac)
    from box_rows b join numbered n using (media_sha256);

create or replace temp view new_statements as
    select n.image_id, a.assertion_id, a.actor, a.action, a.label, a.x1_px, a.y1_px, a.x2_px, a.y2_px, a.reason,
        a.asserted_at, a.batch_id, a.withdraws,
        a.assertion_id in (select assertion_id from standing union all select assertion_id from flags) as stands
    from assertion_rows a join numbered n using (media_sha256) where a.method = 'human';

create or replace temp view new_files as
    select n.image_id, m.source_root || '/' || m.path as file, m.missing_since is not null as is_missing,
        coalesce(m.catalogued_at, m.ingested_at) as since
    from media m join numbered n using (media_sha256);

-- One row per image and label, with the columns that a filter reads.
create or replace temp view new_found as
    select f.label, f.n, f.score as top_score, c.image_id, c.moment, c.source_root, c.path, c.camera_id, c.status,
        c.reviewed, c.flagged, c.event_id, c.deployment_id, c.location
    from shown_labels f join new_cells c on c.media_sha256 = f.media_sha256;
