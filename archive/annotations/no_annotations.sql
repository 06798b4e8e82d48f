-- Relations of annotations.sql for an archive without assertions: statements over them take a third of the time to plan.

create or replace temp view added as select * exclude (group_id, withdraws) from assertions_table where false;

create or replace temp view image_groups as
    select null::varchar as media_sha256, null::varchar as event_id, null::varchar as event_note where false;

create or replace temp view resolved as
    select null::varchar as media_sha256, null::integer as rank, false as hidden, null::varchar as label,
        null::float as score, null::varchar as score_semantics, false as human, null::varchar as said_by,
        null::varchar as reason, null::varchar as determined_by, null::varchar as group_id,
        null::varchar as occurrence_id, null::varchar as slot_id
    where false;
