-- Rows that a group of batches adds to `assertions`, and what the answers to these batches report.
-- Reads `stored` (the human rows about their images), `requested` (turn, batch_id, actor, of_batch, repeats, compares),
-- `statements` (turn, batch_id, actor, number, seen, and columns of `assertions`), `decided` (images of selections that
-- these leave: batch_id, media_sha256) and the variable `now`.

create or replace temp macro statement_id(batch_id, number) as sha256(batch_id || ':' || number);

-- Rows of the batches that others withdraw or repeat.
create or replace temp table targets as
    select r.turn, r.batch_id as by_batch, r.actor as by_actor, r.repeats, s.*
    from requested r join stored s on s.batch_id = r.of_batch;

create or replace temp view new_statements as
    select * exclude (seen), null::varchar as withdraws from statements
    union all by name
    select turn, by_batch as batch_id, by_actor as actor, 'withdraw' as action, media_sha256, inference_key, rank,
        x1_px, y1_px, x2_px, y2_px, label, assertion_id as withdraws,
        row_number() over (partition by turn order by assertion_id) as number
    from targets where not repeats and withdraws is null
        and assertion_id not in (select withdraws from stored where withdraws is not null)
    union all by name
    select turn, by_batch as batch_id, by_actor as actor, s.action, s.media_sha256, s.inference_key, s.rank,
        s.x1_px, s.y1_px, s.x2_px, s.y2_px, s.label, s.reason,
        row_number() over (partition by turn order by s.assertion_id) as number,
        dense_rank() over (partition by turn, s.media_sha256 order by s.asserted_at) - 1 as step
    from targets t join stored s on s.assertion_id = coalesce(t.withdraws, t.assertion_id)
    where t.repeats or t.withdraws is not null;

-- Later than every earlier row about the image, with any clock. Statements of one batch about an image share a moment;
-- those that are recorded again keep their order, which a file gives them (`step`, at most 1,000 for each turn).
create or replace temp view new_rows as
    with new as (
        from new_statements anti join decided using (batch_id, media_sha256)
        where batch_id not in (select batch_id from stored where batch_id is not null)),
    latest as (
        select media_sha256, max(asserted_at) as latest from stored group by media_sha256)
    select new.* exclude (turn, number, step), statement_id(batch_id, number) as assertion_id,
        'human' as layer_id, 'human' as method,
        greatest(getvariable('now'), coalesce(latest + interval 1 microsecond, getvariable('now')))
            + to_microseconds(1000 * turn + least(coalesce(step, 0), 999)) as asserted_at
    from new left join latest using (media_sha256);

-- The rows of the requested batches.
create or replace temp table recorded as
    from stored where batch_id in (select batch_id from requested);

-- Earlier rows about the images of each batch, once for each: `standing` is then that before the batch.
create or replace temp table assertion_rows as
    with moments as (
        select batch_id, media_sha256, min(asserted_at) as until from recorded
        semi join (from requested where compares) using (batch_id) group by all)
    select s.* replace (
        m.batch_id || s.media_sha256 as media_sha256,
        m.batch_id || s.assertion_id as assertion_id,
        m.batch_id || s.withdraws as withdraws)
    from stored s join moments m on s.media_sha256 = m.media_sha256 and s.asserted_at < m.until;

-- Images in which a statement replaced one of another person that its author had not seen.
create or replace temp table changed_images as
    with compared as (
        select r.batch_id, r.assertion_id, r.media_sha256, r.actor, w.seen, r.x1_px is null as of_image, s.actor as other,
            s.asserted_at, s.assertion_id as other_id
        from recorded r semi join (from requested where compares) using (batch_id)
            left join statements w on r.assertion_id = statement_id(w.batch_id, w.number)
            left join standing s on s.media_sha256 = r.batch_id || r.media_sha256
                and (r.x1_px is null or s.x1_px is null or is_same_thing(
                    s.inference_key, s.rank, s.x1_px, s.y1_px, s.x2_px, s.y2_px,
                    r.inference_key, r.rank, r.x1_px, r.y1_px, r.x2_px, r.y2_px))
        where r.withdraws is null and r.action <> 'flag'),
    newest as (
        select batch_id, media_sha256, actor, seen, arg_max(other, (asserted_at, other_id)) as other,
            coalesce(if(of_image, arg_max(other_id, (asserted_at, other_id)) = batch_id || seen,
                bool_or(other_id = batch_id || seen)), false) as stands
        from compared group by batch_id, assertion_id, media_sha256, actor, seen, of_image)
    select distinct batch_id, media_sha256, other from newest
    where not stands and other is distinct from actor and (other is not null or seen is not null);

-- Withdrawn statements that a later one of another batch had replaced already.
create or replace temp table kept_statements as
    select w.batch_id, w.withdraws, s.actor as other
    from recorded w semi join (from requested where compares) using (batch_id)
        join stored t on t.assertion_id = w.withdraws and t.action not in ('flag', 'withdraw')
        left join standing s on s.media_sha256 = w.batch_id || w.media_sha256 and s.asserted_at > t.asserted_at
            and (t.x1_px is null or s.x1_px is null or is_same_thing(
                    s.inference_key, s.rank, s.x1_px, s.y1_px, s.x2_px, s.y2_px,
                    t.inference_key, t.rank, t.x1_px, t.y1_px, t.x2_px, t.y2_px))
    where w.batch_id || w.withdraws not in (select assertion_id from standing)
        and (s.batch_id is null or s.batch_id <> t.batch_id)
        and not exists (from stored o where o.batch_id = t.batch_id and o.media_sha256 = t.media_sha256
            and o.action = 'withdraw' and o.withdraws is null and o.asserted_at > t.asserted_at);
