"""Select the images that a person should look at next, each with its reason.

(tables, Selection) -> rows (media_sha256, camera_id, path, reason, value), in turns over reasons and cameras
Images with a standing human statement are left out, and an event gives one image. Nothing is drawn at random: `random`
orders by a digest with the seed, so that the same archive has the same selection.
"""

from __future__ import annotations

from typing import Literal

import pyarrow as pa
from pydantic import Field

from archive.delta.snapshot import storage_errors
from archive.delta.tables import Tables
from archive.views.query import connect
from archive.views.search import view_shown
from archive.views.views import PRODUCTION
from model_store.errors import BadRequest
from model_store.frozen import Frozen

Reason = Literal["uncertain", "rare", "random"]
MOST = 100_000

_OPEN = """
    opened as (
        select i.media_sha256, i.camera_id, i.source_root, i.path, g.event_id
        from images i semi join seen s on s.media_sha256 = i.media_sha256 and s.status <> 'failed'
            anti join standing h on h.media_sha256 = i.media_sha256
            left join image_groups g on g.media_sha256 = i.media_sha256),
    labels as (select label, count(distinct media_sha256) as n from detections group by label)
"""
_MEASURES: dict[Reason, str] = {
    # the distance of `uncertain_score` in image_index.sql: the score closest to 0.5
    "uncertain": "select media_sha256, min(abs(score - 0.5))::double as value from detections group by all",
    "rare": "select media_sha256, min(n)::double as value from detections join labels using (label) group by all",
    "random": "select media_sha256, null::double as value from opened",
}
"""Statements with the measure of each image; the smallest value comes first."""
_SELECTED = """
    with {opened},
    measured as ({measured}),
    ordered as (
        select o.*, position, reason, value, md5($seed || o.media_sha256) as tie
        from measured m join opened o using (media_sha256)),
    -- one image of an event, and one reason of an image
    of_events as (
        from ordered qualify row_number() over (
            partition by position, coalesce(event_id, media_sha256) order by value, tie) = 1),
    of_cameras as (
        select *, row_number() over (partition by position, camera_id order by value, tie) as turn from of_events),
    ranked as (
        select *, row_number() over (partition by position order by turn, value, tie) as place from of_cameras),
    once as (
        from ranked qualify row_number() over (
            partition by coalesce(event_id, media_sha256) order by place, position) = 1)
    select media_sha256, camera_id, source_root, path, event_id, reason, value
    from once order by place, position limit $count
"""


class Selection(Frozen):
    """Number of images to select, and the reasons in their order."""

    view: str = PRODUCTION
    count: int = Field(default=100, ge=1, le=MOST)
    by: tuple[Reason, ...] = ("uncertain", "rare")
    seed: int = 0


def select(tables: Tables, wanted: Selection, memory_mib: int | None = None) -> pa.Table:
    """Return up to `count` images: media_sha256, camera_id, source_root, path, event_id, reason, value (float64).

    `value` is the distance of the least certain score from 0.5, or the number of images with the rarest label.
    Raises BadRequest without a published view, StorageUnreachable.
    """
    view = view_shown(tables, wanted.view)
    if view is None:
        raise BadRequest("nothing is published: publish a run with 'resight runs publish RUN'")
    measured = " union all ".join(
        f"select *, {position} as position, '{reason}' as reason from ({_MEASURES[reason]})"
        for position, reason in enumerate(dict.fromkeys(wanted.by))
    )
    statement = _SELECTED.format(opened=_OPEN, measured=measured)
    values = {"seed": str(wanted.seed), "count": wanted.count}
    with storage_errors(tables), connect(tables, view, memory_mib=memory_mib, statement=statement) as sql:
        return sql.sql(statement, params=values).to_arrow_table()
