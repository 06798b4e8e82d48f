"""Which box of the one side is which of the other: greedy, one to one, within the label first.

old_boxes, new_boxes --match--> outcomes (id, kind, old_rank, new_rank, old_label, new_label, shift)
kind: matched (same label), relabelled (another label), lost (only old), new (only new)

Of all pairs of an image with IoU >= MATCH_IOU the best is taken, then the best of those whose boxes are both
still free, and so on; best is same label before others, then IoU, then rank of the old box, of the new one.
A pair that is the best for both its boxes comes before any other of them: all such pairs of all images are
taken at once, and again of what is left, until nothing is. The outcome is that of one pair at a time.
"""

from __future__ import annotations

import duckdb

from serve.agreement import MATCH_IOU

SHIFT_STEP = 1e-4
"""Score shifts are counted in whole steps, so that sums and quantiles do not depend on the order of rows."""
IOU = """
    greatest(0, least({a}.x2::double, {b}.x2) - greatest({a}.x1::double, {b}.x1))
    * greatest(0, least({a}.y2::double, {b}.y2) - greatest({a}.y1::double, {b}.y1)) as inter,
    ({a}.x2::double - {a}.x1) * ({a}.y2::double - {a}.y1)
    + ({b}.x2::double - {b}.x1) * ({b}.y2::double - {b}.y1) - inter as either,
    inter / nullif(either, 0) as iou
"""
"""Columns of a join of relations {a} and {b}; boxes end where their corner is, without an extra pixel."""
_PAIRS = f"""
    create table pairs as
    with touching as (
        select id, o.rank as old_rank, n.rank as new_rank, o.label = n.label as same,
            round((n.score::double - o.score) / {SHIFT_STEP})::integer as shift,
            {IOU.format(a="o", b="n")}
        from old_boxes o join new_boxes n using (id)
        where id in (select id from images where compared))
    select id, old_rank, new_rank, same, shift, iou from touching where iou >= {MATCH_IOU};
    create table matches as from pairs limit 0;
"""
_BEST_FOR_BOTH = """
    create or replace temp table best as
    select id, old_rank, new_rank, same, shift, iou from pairs
    qualify row_number() over (
            partition by id, old_rank order by same desc, iou desc, new_rank) = 1
        and row_number() over (
            partition by id, new_rank order by same desc, iou desc, old_rank) = 1;
    insert into matches from best;
    create or replace table pairs as
    from pairs anti join best using (id, old_rank) anti join best using (id, new_rank);
"""
_OUTCOMES = """
    create table outcomes as
    select id, if(same, 'matched', 'relabelled') as kind, old_rank, new_rank,
        o.label as old_label, n.label as new_label, shift
    from matches join (select id, rank as old_rank, label from old_boxes) o using (id, old_rank)
        join (select id, rank as new_rank, label from new_boxes) n using (id, new_rank)
    union all
    select id, 'lost', rank, null, label, null, null from old_boxes o
    where id in (select id from images where compared)
        and not exists (from matches m where m.id = o.id and m.old_rank = o.rank)
    union all
    select id, 'new', null, rank, null, label, null from new_boxes n
    where id in (select id from images where compared)
        and not exists (from matches m where m.id = n.id and m.new_rank = n.rank)
"""


def match(sql: duckdb.DuckDBPyConnection) -> None:
    sql.execute(_PAIRS)
    while sql.sql("select count(*) from pairs").fetchall()[0][0]:
        sql.execute(_BEST_FOR_BOTH)
    sql.execute(_OUTCOMES)
