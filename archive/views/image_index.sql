-- Rows of an image index, from the relations of views.sql and annotations.sql over the same tables.
-- Reads `images`, `results`, `detections`, `standing`, `image_groups` and `image_deployments`. archive/views/image_index_file.py stores them.

create or replace temp table shown_boxes as
    select media_sha256, label, score, {
        'label': label, 'x1': x_frac::float, 'y1': y_frac::float,
        'x2': (x_frac + w_frac)::float, 'y2': (y_frac + h_frac)::float} as box
    from detections;

-- The labels that the view shows on each image. An animal that a person added has no score.
create or replace temp table shown_labels as
    select media_sha256, label, count(*) as n, max(score) as score, arg_min(score, abs(score - 0.5)) as uncertain_score
    from shown_boxes group by all;

-- One row per image. An image without a time has -infinity, which sorts it last, like `nulls last` of a search.
create or replace temp table image_rows as
    with labelled as (
        select media_sha256, sum(n)::integer as n_boxes, max(score) as top_score,
            arg_max(label, (coalesce(score, -1), label)) as top_label,
            arg_min(uncertain_score, abs(uncertain_score - 0.5)) as uncertain_score,
            bool_or(lower(label) = 'person') as person
        from shown_labels group by media_sha256),
    outlined as (
        select media_sha256, list(box order by score desc nulls first)[:10] as boxes
        from shown_boxes where box.x2 is not null and box.y2 is not null group by media_sha256),
    stated as (select distinct media_sha256 from standing)
    select i.media_sha256, coalesce(i.captured_at_corrected, '-infinity'::timestamp) as moment, i.captured_at_local,
        i.source_root, i.path, i.camera_id, p.deployment_id, p.location, i.width_px, i.height_px, coalesce(r.status, 'missing') as status,
        s.media_sha256 is not null as reviewed, coalesce(l.n_boxes, 0) as n_boxes, l.top_label, l.top_score,
        l.uncertain_score, coalesce(l.person, false) as person, g.event_id, coalesce(o.boxes, []) as boxes
    from images i left join results r on r.media_sha256 = i.media_sha256
        left join labelled l on l.media_sha256 = i.media_sha256
        left join outlined o on o.media_sha256 = i.media_sha256
        left join stated s on s.media_sha256 = i.media_sha256
        left join image_groups g on g.media_sha256 = i.media_sha256
        left join image_deployments p on p.media_sha256 = i.media_sha256;

-- The images in page order, with a number that is larger than all of `first_id`.
create or replace temp table new_cells as
    select getvariable('first_id') + row_number() over (order by moment desc, source_root, path) as image_id, *
    from image_rows;

-- One row per image and label, with the columns that a filter reads.
create or replace view new_found as
    select f.label, f.score as top_score, c.image_id, c.moment, c.source_root, c.path, c.camera_id, c.status, c.reviewed,
        c.event_id, c.deployment_id, c.location
    from shown_labels f join new_cells c on c.media_sha256 = f.media_sha256;
