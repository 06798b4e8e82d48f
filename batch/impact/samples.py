"""Images to look at: for each kind of change a few, by lot and spread over the cameras.

relations of a Comparison --choose--> Sample (one image: what each side shows of it, what people said)
By lot means by a digest of the content: the same images each time, and no kind of image preferred. Cameras
take turns. An image is taken once, for the first kind of KINDS that it is an example of.
"""

from __future__ import annotations

from typing import Any

import duckdb

from model_store.config import Frozen

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
    order by turn, id limit $most
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
    select b.id, b.rank, b.label, b.score, [b.x1, b.y1, b.x2, b.y2] as box_px, coalesce(kind, 'shown') as outcome
    from {side}_boxes b left join outcomes o on o.id = b.id and o.{side}_rank = b.rank
    where b.id in (select id from chosen) order by b.id, b.rank
"""
_SAID = """
    select id, action, label, actor, case when x1 is not null then [x1, y1, x2, y2] end as box_px,
        old, new, lost
    from verdicts where id in (select id from chosen) order by id, assertion_id
"""
BoxPx = tuple[float, float, float, float]


class ShownBox(Frozen):
    """`outcome` is matched, relabelled, lost or new; `shown` where the images could not be compared."""

    rank: int
    label: str
    score: float
    box_px: BoxPx
    outcome: str


class Said(Frozen):
    action: str
    label: str | None
    actor: str | None
    box_px: BoxPx | None
    old: str
    new: str
    lost: bool


class Sample(Frozen):
    """`places` are source root and path of every file with this content."""

    kind: str
    media_sha256: str
    camera_id: str | None
    captured_at_local: str | None
    places: tuple[tuple[str, str], ...]
    old: tuple[ShownBox, ...] = ()
    new: tuple[ShownBox, ...] = ()
    said: tuple[Said, ...] = ()

    @property
    def path(self) -> str:
        return self.places[0][1]


def choose(sql: duckdb.DuckDBPyConnection, per_kind: int) -> list[Sample]:
    """At most so many of each kind, in the order of KINDS."""
    sql.execute("create or replace temp table chosen (kind varchar, place bigint, id uhugeint)")
    for kind, candidates in KINDS.items():
        sql.execute(_CHOOSE.format(candidates=candidates), {"kind": kind, "most": per_kind})
    boxes = {side: _by_image(sql, _BOXES.format(side=side), ShownBox) for side in ("old", "new")}
    said = _by_image(sql, _SAID, Said)
    return [
        Sample(
            **row,
            old=boxes["old"].get(one, ()),
            new=boxes["new"].get(one, ()),
            said=said.get(one, ()),
        )
        for one, row in _rows(sql, _PLACES, {"kinds": list(KINDS)})
    ]


def _by_image(sql: duckdb.DuckDBPyConnection, query: str, kind: type[Frozen]) -> dict[int, Any]:
    found: dict[int, list[Frozen]] = {}
    for one, row in _rows(sql, query):
        found.setdefault(one, []).append(kind(**row))
    return {one: tuple(rows) for one, rows in found.items()}


def _rows(
    sql: duckdb.DuckDBPyConnection, query: str, parameters: dict[str, Any] | None = None
) -> list[tuple[int, dict[str, Any]]]:
    """Each row by its column `id`."""
    found = sql.execute(query, parameters)
    names = [column[0] for column in found.description or ()]
    rows = (dict(zip(names, row, strict=True)) for row in found.fetchall())
    return [(row.pop("id"), row) for row in rows]
