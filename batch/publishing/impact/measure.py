"""Count the relations of a comparison: images, boxes by label and by camera, human assertions.

outcomes, images, cameras, verdicts --measure--> Impact. An image counts for one camera, that of
`archive/catalogue/images.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import duckdb

from archive.catalogue.images import images_of
from batch.publishing.impact.facts import (
    Boxes,
    CameraBoxes,
    Images,
    Impact,
    LabelBoxes,
    LostAssertion,
    Relabelled,
    Shift,
    Verified,
)
from batch.publishing.impact.load import SHIFT_STEP
from batch.publishing.impact.result_sets import Side
from serve.models.shadow import MATCH_IOU

MAX_LOST_ASSERTIONS = 1000
"""Maximum number of lost assertions that are listed; all are counted."""
_TALLIES = """
    create table tallies as
    select id, count(*) filter (kind = 'matched') as matched, count(*) filter (kind = 'lost') as lost,
        count(*) filter (kind = 'new') as new, count(*) filter (kind = 'relabelled') as relabelled,
        lost + new + relabelled > 0 as changed,
        matched + lost + relabelled > 0 and matched + new + relabelled = 0 as emptied,
        matched + lost + relabelled = 0 and matched + new + relabelled > 0 as filled
    from outcomes group by id
"""
_IMAGES = """
    select count(old_failed), count(new_failed), count(*) filter (
            old_failed is not null and new_failed is not null),
        count(*) filter (old_failed), count(*) filter (new_failed),
        count(*) filter (new_failed and not old_failed), count(*) filter (compared),
        (select struct_pack(changed := count(*) filter (changed), emptied := count(*) filter (emptied),
            filled := count(*) filter (filled), with_lost := count(*) filter (lost > 0),
            with_new := count(*) filter (new > 0), with_relabelled := count(*) filter (relabelled > 0))
         from tallies),
        (select count(*) from everywhere where not there and new_failed is null)
    from images
"""
_IMAGE_NAMES = ("old", "new", "both", "old_failed", "new_failed", "newly_failed", "compared")
_KINDS = """
    matched, lost, new, relabelled_from, relabelled_to,
    matched + lost + relabelled_from as shown_old, matched + new + relabelled_to as shown_new
"""
_ALL = """
    select coalesce(sum(matched), 0)::bigint as matched,
        coalesce(sum(lost), 0)::bigint as lost, coalesce(sum(new), 0)::bigint as new,
        coalesce(sum(relabelled), 0)::bigint as relabelled_from, relabelled_from as relabelled_to
    from tallies
"""
_LABELS = """
    with sides as (
        select old_label as label, kind, 'from' as side from outcomes where kind <> 'new'
        union all
        select new_label, kind, 'to' from outcomes where kind in ('new', 'relabelled'))
    select label, count(*) filter (kind = 'matched') as matched, count(*) filter (kind = 'lost') as lost,
        count(*) filter (kind = 'new') as new,
        count(*) filter (kind = 'relabelled' and side = 'from') as relabelled_from,
        count(*) filter (kind = 'relabelled' and side = 'to') as relabelled_to
    from sides group by label
"""
_CAMERAS = """
    select camera_id, coalesce(sum(matched), 0)::bigint as matched, coalesce(sum(lost), 0)::bigint as lost,
        coalesce(sum(new), 0)::bigint as new, coalesce(sum(relabelled), 0)::bigint as relabelled_from,
        relabelled_from as relabelled_to, count(*) as compared, count(*) filter (changed) as changed,
        count(*) filter (emptied) as emptied, count(*) filter (filled) as filled
    from cameras join images using (id) left join tallies using (id) where compared group by camera_id
"""
_SHIFTS = """
    with counted as (select {key} as key, shift, count(*) as n from outcomes {join}
        where kind = 'matched' group by all),
    running as (select key, shift, n, sum(n) over (partition by key order by shift) as upto,
        sum(n) over (partition by key) as of_all from counted)
    select key, sum(shift * n)::double / any_value(of_all) as mean, {quantiles} from running group by key
"""
_QUANTILES = {"median": 0.5, "p5": 0.05, "p95": 0.95}
_RELABELLED = """
    select old_label, new_label, count(*) as boxes from outcomes where kind = 'relabelled'
    group by all order by boxes desc, old_label, new_label
"""
_VERIFIED = """
    select count(*), count(*) filter (new = 'right'), count(*) filter (contradicted),
        count(*) filter (new = 'unseen'), count(*) filter (old = 'right'), count(*) filter (lost),
        count(*) filter (old <> 'right' and new = 'right')
    from verdicts
"""
_VERIFIED_NAMES = ("said", "confirmed", "contradicted", "unseen", "old_confirmed", "lost", "gained")
_LOST = """
    with lost as (from verdicts where lost order by media_sha256, assertion_id limit {limit}),
    places as (select media_sha256, path from {images} where media_sha256 in (select media_sha256 from lost))
    select assertion_id, media_sha256, path, action, label,
        case when x1_px is not null then [x1_px, y1_px, x2_px, y2_px] end as box_px, new
    from lost join places using (media_sha256) order by media_sha256, assertion_id
"""


def measure(sql: duckdb.DuckDBPyConnection, old: Side, new: Side) -> Impact:
    sql.execute(_TALLIES)
    shifts = {name: _shifts(sql, name) for name in ("all", "label", "camera")}
    return Impact(
        old=old,
        new=new,
        match_iou=MATCH_IOU,
        images=_images(sql),
        boxes=Boxes(**_total(sql), shift=shifts["all"].get(None)),
        labels=tuple(
            LabelBoxes(**row, shift=shifts["label"].get(row["label"]))
            for row in _dicts(sql, f"select label, {_KINDS} from ({_LABELS}) order by label")
        ),
        relabelled=tuple(Relabelled(**row) for row in _dicts(sql, _RELABELLED)),
        cameras=tuple(
            CameraBoxes(**row, shift=shifts["camera"].get(row["camera_id"]))
            for row in _dicts(
                sql,
                f"select camera_id, compared, changed, emptied, filled, {_KINDS} "
                f"from ({_CAMERAS}) order by camera_id nulls last",
            )
        ),
        verified=Verified(**dict(zip(_VERIFIED_NAMES, sql.sql(_VERIFIED).fetchall()[0], strict=True))),
        lost_assertions=tuple(
            LostAssertion(**row)
            for row in _dicts(sql, _LOST.format(limit=MAX_LOST_ASSERTIONS, images=images_of("media")))
        ),
    )


def _images(sql: duckdb.DuckDBPyConnection) -> Images:
    *counts, changes, gone = sql.sql(_IMAGES).fetchall()[0]
    return Images(**dict(zip(_IMAGE_NAMES, counts, strict=True)), **changes, gone=gone)


def _total(sql: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    return _dicts(sql, f"select {_KINDS} from ({_ALL})")[0]


def _shifts(sql: duckdb.DuckDBPyConnection, by: str) -> dict[str | None, Shift]:
    """Return the shifts of all boxes, by key. Quantile q is the lowest shift with at least q of all at or below it."""
    key, join = {"all": ("null", ""), "label": ("old_label", ""), "camera": ("camera_id", "join cameras using (id)")}[
        by
    ]
    quantiles = ", ".join(f"min(shift) filter (upto >= {q} * of_all) as {name}" for name, q in _QUANTILES.items())
    rows = _dicts(sql, _SHIFTS.format(key=key, join=join, quantiles=quantiles))
    return {row.pop("key"): _shift(row) for row in rows}


def _shift(steps: dict[str, float]) -> Shift:
    return Shift(**{name: round(value * SHIFT_STEP, 6) for name, value in steps.items()})


def _dicts(sql: duckdb.DuckDBPyConnection, query: str) -> list[dict[str, Any]]:
    relation = sql.sql(query)
    names: Sequence[str] = relation.columns
    return [dict(zip(names, row, strict=True)) for row in relation.fetchall()]
