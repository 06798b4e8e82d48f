"""Compare current human assertions with both sides, and choose sample images for each kind of change.

relations of a Comparison --choose--> Sample (one image: the boxes of each side, and human assertions)
Images are ordered by a digest of their content, so that the choice is random and repeatable. Cameras take turns.
Each image is chosen once, for the first kind of KINDS that it belongs to.

current human assertions, old_boxes, new_boxes --hold_against--> verdicts
    (assertion_id, id, action, label, corners, old, new: right | wrong | unseen; contradicted, lost)
right    keep, relabel: a shown box of that label with IoU >= MATCH_IOU
         suppress: no shown box with IoU >= MATCH_IOU, except boxes that overlap a confirmed box at least as much
         suppress without a box: nothing is shown in the image
unseen   the side has no result for the image, or a failed one
"""

from __future__ import annotations

from typing import Any

import duckdb

from archive.annotations.assertions import make_standing
from archive.delta.tables import Tables
from batch.publishing.impact.measure import dicts
from model_store.frozen import Frozen
from serve.models.shadow import MATCH_IOU

_CHECKED = """
    create table said as
    select assertion_id, md5_number(media_sha256) as id, media_sha256, action, label, actor, reason,
        x1_px, y1_px, x2_px, y2_px
    from standing where md5_number(media_sha256) in (select id from images)
"""
_ON = f"""
    create table {{side}}_on as
    with touching as (
        select id, assertion_id, action, s.label = b.label as same, rank,
            iou(s.x1_px, s.y1_px, s.x2_px, s.y2_px, b.x1_px, b.y1_px, b.x2_px, b.y2_px) as iou
        from said s join {{side}}_boxes b using (id))
    select id, assertion_id, action, same, rank, iou from touching where iou >= {MATCH_IOU};
    create table {{side}}_verdicts as
    with claims as (
        select id, rank, max(iou) as iou from {{side}}_on where action <> 'suppress' group by id, rank),
    found as (
        select assertion_id,
            bool_or(action <> 'suppress' and same) as confirmed,
            bool_or(action = 'suppress' and coalesce(c.iou < o.iou, true)) as again
        from {{side}}_on o left join claims c using (id, rank) group by assertion_id),
    shown as (select distinct id from {{side}}_boxes)
    select assertion_id, case
        when coalesce({{side}}_failed, true) then 'unseen'
        when case when action <> 'suppress' then coalesce(confirmed, false)
            when x1_px is null then id not in (select id from shown)
            else not coalesce(again, false) end then 'right'
        else 'wrong' end as verdict
    from said join images using (id) left join found using (assertion_id);
"""
_VERDICTS = """
    create table verdicts as
    select said.*, o.verdict as old, n.verdict as new, n.verdict = 'wrong' as contradicted,
        o.verdict = 'right'
            and (n.verdict = 'wrong' or (n.verdict = 'unseen' and action <> 'suppress')) as lost
    from said join old_verdicts o using (assertion_id) join new_verdicts n using (assertion_id)
"""


def hold_against(sql: duckdb.DuckDBPyConnection, tables: Tables) -> None:
    """Create the relation `verdicts`. Raises StorageUnreachable."""
    make_standing(sql, tables)
    sql.execute(_CHECKED)
    for side in ("old", "new"):
        sql.execute(_ON.format(side=side))
    sql.execute(_VERDICTS)


KINDS = {
    "verified": "select distinct id from verdicts where lost",
    "lost": "select id from tallies where lost > 0",
    "new": "select id from tallies where new > 0",
    "relabelled": "select id from tallies where relabelled > 0",
    "emptied": "select id from tallies where emptied",
}
_CHOOSE = """
    insert into chosen
    with fresh as (select id, min(camera_id) as camera_id from cameras where id in ({candidates})
            and id not in (select id from chosen) group by id),
    turns as (select id, row_number() over (partition by camera_id order by id) as turn from fresh)
    select $kind, row_number() over (order by turn, id) as place, id from turns
    order by turn, id limit $per_kind
"""
_PLACES = """
    select kind, c.id, i.media_sha256, any_value(k.camera_id) as camera_id,
        min(m.captured_at_local) as captured_at_local,
        list((m.source_root, m.path) order by m.source_root, m.path) as places
    from chosen c join images i using (id) join cameras k using (id) join media m on m.media_sha256 = i.media_sha256
    where m.missing_since is null group by kind, place, c.id, i.media_sha256
    order by list_position($kinds, kind), place
"""
_BOXES = """
    select b.id, b.rank, b.label, b.score, [b.x1_px, b.y1_px, b.x2_px, b.y2_px] as box_px,
        coalesce(kind, 'shown') as outcome
    from {side}_boxes b left join outcomes o on o.id = b.id and o.{side}_rank = b.rank
    where b.id in (select id from chosen) order by b.id, b.rank
"""
_SAID = """
    select id, action, label, actor, case when x1_px is not null then [x1_px, y1_px, x2_px, y2_px] end as box_px,
        old, new, lost
    from verdicts where id in (select id from chosen) order by id, assertion_id
"""
BoxPx = tuple[float, float, float, float]


class ShownBox(Frozen):
    """A box in a sample; `outcome` is matched, relabelled, lost or new, or shown if the image cannot be compared."""

    rank: int
    label: str
    score: float
    box_px: BoxPx
    outcome: str


class SampleStatement(Frozen):
    action: str
    label: str | None
    actor: str | None
    box_px: BoxPx | None
    old: str
    new: str
    lost: bool


class Sample(Frozen):
    """An image of a report; `places` are source root and path of every file with this content."""

    kind: str
    media_sha256: str
    camera_id: str | None
    captured_at_local: str | None
    places: tuple[tuple[str, str], ...]
    old: tuple[ShownBox, ...] = ()
    new: tuple[ShownBox, ...] = ()
    said: tuple[SampleStatement, ...] = ()

    @property
    def path(self) -> str:
        return self.places[0][1]


def choose(sql: duckdb.DuckDBPyConnection, per_kind: int) -> list[Sample]:
    """Return up to `per_kind` images of each kind, in the order of KINDS."""
    sql.execute("create or replace temp table chosen (kind varchar, place bigint, id uhugeint)")
    for kind, candidates in KINDS.items():
        sql.execute(_CHOOSE.format(candidates=candidates), {"kind": kind, "per_kind": per_kind})
    boxes = {side: _by_image(sql, _BOXES.format(side=side), ShownBox) for side in ("old", "new")}
    said = _by_image(sql, _SAID, SampleStatement)
    samples: list[Sample] = []
    for row in dicts(sql, _PLACES, {"kinds": list(KINDS)}):
        image = row.pop("id")
        old, new = (boxes[side].get(image, ()) for side in ("old", "new"))
        samples.append(Sample(**row, old=old, new=new, said=said.get(image, ())))
    return samples


def _by_image(sql: duckdb.DuckDBPyConnection, query: str, kind: type[Frozen]) -> dict[int, Any]:
    by_image: dict[int, list[Frozen]] = {}
    for row in dicts(sql, query):
        by_image.setdefault(row.pop("id"), []).append(kind(**row))
    return {image: tuple(rows) for image, rows in by_image.items()}
