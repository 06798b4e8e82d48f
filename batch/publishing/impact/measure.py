"""Count the relations of a comparison: images, boxes by label and by camera, human assertions.

The counts are frozen classes, written to `impact.json`; docs/reference/impact.md explains each number.
outcomes, images, cameras, verdicts --measure--> Impact. An image counts for one camera, that of
`archive/catalogue/images.py`.
"""

from __future__ import annotations

from typing import Any

import duckdb

from archive.catalogue.images import images_of
from batch.publishing.impact.result_sets import ResultSet
from model_store.frozen import Frozen
from serve.models.shadow import MATCH_IOU

SHIFT_STEP = 1e-4
"""Step of score shifts; sums and quantiles of whole steps do not depend on the order of rows."""
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
    from (
        select count(i.old_failed) as old, count(i.new_failed) as new,
            count(*) filter (i.old_failed is not null and i.new_failed is not null) as both,
            count(*) filter (i.old_failed) as old_failed, count(*) filter (i.new_failed) as new_failed,
            count(*) filter (i.new_failed and not i.old_failed) as newly_failed,
            count(*) filter (compared) as compared from images i),
        (select count(*) filter (changed) as changed, count(*) filter (emptied) as emptied,
            count(*) filter (filled) as filled, count(*) filter (lost > 0) as with_lost,
            count(*) filter (new > 0) as with_new, count(*) filter (relabelled > 0) as with_relabelled from tallies),
        (select count(*) as gone from everywhere where not there and new_failed is null)
"""
_KINDS = """
    matched, lost, new, relabelled_from, relabelled_to,
    matched + lost + relabelled_from as shown_old, matched + new + relabelled_to as shown_new
"""
_SUMS = """
    coalesce(sum(matched), 0)::bigint as matched, coalesce(sum(lost), 0)::bigint as lost,
    coalesce(sum(new), 0)::bigint as new, coalesce(sum(relabelled), 0)::bigint as relabelled_from,
    relabelled_from as relabelled_to
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
_CAMERAS = f"""
    select camera_id, {_SUMS}, count(*) as compared, count(*) filter (changed) as changed,
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
    select count(*) as said, count(*) filter (v.new = 'right') as confirmed,
        count(*) filter (v.contradicted) as contradicted, count(*) filter (v.new = 'unseen') as unseen,
        count(*) filter (v.old = 'right') as old_confirmed, count(*) filter (v.lost) as lost,
        count(*) filter (v.old <> 'right' and v.new = 'right') as gained
    from verdicts v
"""
_LOST = """
    with lost as (from verdicts where lost order by media_sha256, assertion_id limit {limit}),
    places as (select media_sha256, path from {images} where media_sha256 in (select media_sha256 from lost))
    select assertion_id, media_sha256, path, action, label,
        case when x1_px is not null then [x1_px, y1_px, x2_px, y2_px] end as box_px, new
    from lost join places using (media_sha256) order by media_sha256, assertion_id
"""


class Images(Frozen):
    """Counts of images by unique content, of those with a present file; `gone` counts those without one."""

    old: int
    new: int
    both: int
    old_failed: int
    new_failed: int
    newly_failed: int
    compared: int
    changed: int
    emptied: int
    filled: int
    with_lost: int
    with_new: int
    with_relabelled: int
    gone: int

    @property
    def only_old(self) -> int:
        return self.old - self.both

    @property
    def only_new(self) -> int:
        return self.new - self.both


class Shift(Frozen):
    """Distribution of new score minus old score over matched boxes, in steps of 0.0001."""

    mean: float
    median: float
    p5: float
    p95: float


class Boxes(Frozen):
    """Counts of boxes: shown_old = matched + lost + relabelled_from; shown_new = matched + new + relabelled_to."""

    shown_old: int
    shown_new: int
    matched: int
    lost: int
    new: int
    relabelled_from: int
    relabelled_to: int
    shift: Shift | None


class LabelBoxes(Boxes):
    label: str


class CameraBoxes(Boxes):
    """Counts of boxes and images of one camera; `camera_id` is None for images of unknown cameras."""

    camera_id: str | None
    compared: int
    changed: int
    emptied: int
    filled: int


class Relabelled(Frozen):
    old_label: str
    new_label: str
    boxes: int


class Verified(Frozen):
    """Counts of human assertions on these images: `said` = confirmed + contradicted + unseen.

    `lost` are right on the old side and not on the new one, `gained` the reverse.
    """

    said: int
    confirmed: int
    contradicted: int
    unseen: int
    old_confirmed: int
    lost: int
    gained: int


class LostAssertion(Frozen):
    assertion_id: str
    media_sha256: str
    path: str
    action: str
    label: str | None
    box_px: tuple[float, float, float, float] | None
    new: str


class Impact(Frozen):
    old: ResultSet
    new: ResultSet
    match_iou: float
    images: Images
    boxes: Boxes
    labels: tuple[LabelBoxes, ...]
    relabelled: tuple[Relabelled, ...]
    cameras: tuple[CameraBoxes, ...]
    verified: Verified
    lost_assertions: tuple[LostAssertion, ...]


def measure(sql: duckdb.DuckDBPyConnection, old: ResultSet, new: ResultSet) -> Impact:
    sql.execute(_TALLIES)
    (images,), (boxes,) = dicts(sql, _IMAGES), dicts(sql, f"select {_KINDS} from (select {_SUMS} from tallies)")
    labels = dicts(sql, f"select label, {_KINDS} from ({_LABELS}) order by label")
    columns = f"camera_id, compared, changed, emptied, filled, {_KINDS}"
    cameras = dicts(sql, f"select {columns} from ({_CAMERAS}) order by camera_id nulls last")
    by_label, by_camera = _shifts(sql, "old_label"), _shifts(sql, "camera_id", "join cameras using (id)")
    lost = _LOST.format(limit=MAX_LOST_ASSERTIONS, images=images_of("media"))
    return Impact(
        old=old,
        new=new,
        match_iou=MATCH_IOU,
        images=Images(**images),
        boxes=Boxes(**boxes, shift=_shifts(sql, "null").get(None)),
        labels=tuple(LabelBoxes(**row, shift=by_label.get(row["label"])) for row in labels),
        relabelled=tuple(Relabelled(**row) for row in dicts(sql, _RELABELLED)),
        cameras=tuple(CameraBoxes(**row, shift=by_camera.get(row["camera_id"])) for row in cameras),
        verified=Verified(**dicts(sql, _VERIFIED)[0]),
        lost_assertions=tuple(LostAssertion(**row) for row in dicts(sql, lost)),
    )


def _shifts(sql: duckdb.DuckDBPyConnection, key: str, join: str = "") -> dict[str | None, Shift]:
    """Return the shifts of all boxes, by key. Quantile q is the lowest shift with at least q of all at or below it."""
    quantiles = ", ".join(f"min(shift) filter (upto >= {q} * of_all) as {name}" for name, q in _QUANTILES.items())
    rows = dicts(sql, _SHIFTS.format(key=key, join=join, quantiles=quantiles))
    return {
        row.pop("key"): Shift(**{name: round(steps * SHIFT_STEP, 6) for name, steps in row.items()}) for row in rows
    }


def dicts(sql: duckdb.DuckDBPyConnection, query: str, parameters: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """Return the rows of a query by the names of their columns."""
    result = sql.execute(query, parameters)
    names = [column[0] for column in result.description or ()]
    return [dict(zip(names, row, strict=True)) for row in result.fetchall()]
