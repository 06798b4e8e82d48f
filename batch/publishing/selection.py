"""Select the images that a person should look at next, each with its reason; draw the random ones to measure a model.

(tables, scope, Selection) --select--> rows (media_sha256, camera_id, source_root, path, event_id, reason, value)
Reasons take turns. Within a reason cameras take turns, and an event gives one image. The order of `random` is a
permutation of the scope by a digest with the seed. Its first N images, with the reviewed ones among them, are a simple
random sample of the scope.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, get_args

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from archive.delta.snapshot import storage_errors
from archive.delta.tables import Tables
from archive.views.publications import view_named
from archive.views.query import connect
from archive.views.similar import embedder_named
from archive.views.suggestions import OF_EMBEDDER
from archive.views.vector_index import Vectors, vectors_of
from archive.views.views import PRODUCTION, View
from batch.planning.plan import scope_files
from batch.publishing.impact.compare import compared
from batch.publishing.impact.result_sets import NOTHING, side, side_of_view
from batch.publishing.publish import labels_of
from batch.runs.scope import MediaScope
from model_store.errors import BadRequest
from model_store.frozen import Frozen
from model_store.store import ModelStore

Reason = Literal["uncertain", "rare", "disagree", "diverse", "random"]
REASONS: tuple[Reason, ...] = get_args(Reason)
_VECTORS_MIB = 256
"""Memory for vectors: of more crops, a random part of this size is compared."""
_PART = 1024
"""Vectors of reviewed images that are compared at once."""
_OPENED = """
    create temp table opened as
    with seen_images as (
        select i.media_sha256, i.camera_id, i.source_root, i.path, g.event_id, md5($seed || i.media_sha256) as tie,
            i.media_sha256 in (select media_sha256 from standing) as reviewed
        from images i semi join scope_files f on f.media_sha256 = i.media_sha256
            semi join seen s on s.media_sha256 = i.media_sha256 and s.status <> 'failed'
            left join image_groups g on g.media_sha256 = i.media_sha256)
    select *, row_number() over (order by tie, media_sha256) as drawn from seen_images
"""
_MEASURES: dict[Reason, str] = {
    # the distance of `uncertain_score` in image_index.sql: the score closest to 0.5
    "uncertain": """
        select media_sha256, min(abs(score - 0.5))::double as value, value as urgency from detections group by all
    """,
    "rare": """
        with labels as (select label, count(distinct media_sha256) as n from detections group by label)
        select media_sha256, min(n)::double as value, value as urgency
        from detections join labels using (label) group by all
    """,
    "disagree": "select media_sha256, value::double as value, -value as urgency from differing",
    "diverse": "select media_sha256, value, place as urgency from farthest",
    "random": "select media_sha256, drawn::double as value, drawn as urgency from opened",
}
"""Statements with the measure of each image; the smallest urgency comes first."""
_SELECTED = """
    with measured as ({measured}),
    ordered as (
        select o.*, position, reason, value, urgency, reason = 'random' as at_random,
            if(at_random, o.media_sha256, coalesce(event_id, o.media_sha256)) as thing
        from measured m join opened o using (media_sha256) where at_random or not reviewed),
    of_events as (
        from ordered qualify row_number() over (partition by position, thing order by urgency, tie) = 1),
    of_cameras as (
        select *, if(at_random, 0, row_number() over (partition by position, camera_id order by urgency, tie)) as turn
        from of_events),
    ranked as (
        select *, row_number() over (partition by position order by turn, urgency, tie) as place from of_cameras),
    -- one reason of an event, then of an image
    once as (from ranked qualify row_number() over (partition by at_random, thing order by place, position) = 1)
    select media_sha256, camera_id, source_root, path, event_id, reason, value
    from once where place <= $count and not reviewed
    qualify row_number() over (partition by media_sha256 order by place, position) = 1
    order by place, position limit $count
"""
_POINTS = f"""
    with points as (
        select o.media_sha256, coalesce(o.event_id, o.media_sha256) as thing, o.tie, d.rank
        from opened o join detections d using (media_sha256) where o.reviewed = $reviewed and d.rank is not null)
    select p.media_sha256, p.thing, e.vector
    from points p join embeddings e on e.media_sha256 = p.media_sha256 and e.rank = p.rank and {OF_EMBEDDER}
    order by p.tie, p.rank limit $most
"""
_SIZE = f"select max(len(vector)) from embeddings e where {OF_EMBEDDER}"
_DIFFERING = """
    select i.media_sha256, count(*) as value from outcomes o join images i using (id)
    where kind <> 'matched' and ($labels is null or
        (coalesce(old_label in $labels, true) and coalesce(new_label in $labels, true)))
    group by all
"""
USED = _OPENED + _SELECTED + _POINTS + "".join(_MEASURES.values())


class Selection(Frozen):
    """Number of images to select, and the reasons in their order.

    `against` names the other results for `disagree`, `embedder` the vectors for `diverse`.
    """

    view: str = PRODUCTION
    count: int = Field(default=100, ge=1)
    by: tuple[Reason, ...] = ("uncertain", "rare")
    seed: int = 0
    against: str = ""
    embedder: str = ""


def reasons(text: str) -> tuple[Reason, ...]:
    """Parse reasons with commas between them. Raises BadRequest."""
    known: dict[str, Reason] = {reason: reason for reason in REASONS}
    names = list(dict.fromkeys(name.strip() for name in text.split(",")))
    if unknown := [name for name in names if name not in known]:
        raise BadRequest(
            f"unknown reason '{unknown[0]}': use one or more of {', '.join(REASONS)}, as in uncertain,rare"
        )
    return tuple(known[name] for name in names)


@contextmanager
def opened(
    tables: Tables, view: View, scope: MediaScope, seed: int, memory_mib: int | None = None
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield the relations of a view, and `opened`: the images of a scope with a result that did not fail.

    Its columns are media_sha256, camera_id, source_root, path, event_id, tie, drawn (place in the random order of the
    seed, from 1) and reviewed (a person's statement about the image is valid). Raises BadRequest, StorageUnreachable.
    """
    files = scope_files(tables, scope, view)
    with storage_errors(tables), connect(tables, view, memory_mib=memory_mib, statement=USED) as sql:
        sql.register("scope_files", files)
        sql.execute(_OPENED, {"seed": str(seed)})
        yield sql


def select(
    tables: Tables, store: ModelStore, scope: MediaScope, wanted: Selection, memory_mib: int | None = None
) -> pa.Table:
    """Return up to `count` images: media_sha256, camera_id, source_root, path, event_id, reason, value (float64).

    `value` is the distance of the least certain score from 0.5, the number of images with the rarest label, of
    detections that differ, the cosine distance to what is chosen or reviewed, or the place in the random order.
    Raises BadRequest without a published view, for an empty scope, or without what a reason needs. Raises
    ModelNotFound, StorageUnreachable.
    """
    view = view_named(tables, wanted.view)
    with opened(tables, view, scope, wanted.seed, memory_mib) as sql:
        if "disagree" in wanted.by:
            sql.register("differing", _differing(tables, store, view, wanted.against, sql))
        if "diverse" in wanted.by:
            sql.register("farthest", _farthest(sql, view, wanted))
        measured = " union all ".join(
            f"select *, {position} as position, '{reason}' as reason from ({_MEASURES[reason]})"
            for position, reason in enumerate(wanted.by)
        )
        return sql.sql(_SELECTED.format(measured=measured), params={"count": wanted.count}).to_arrow_table()


def _differing(tables: Tables, store: ModelStore, view: View, against: str, sql: duckdb.DuckDBPyConnection) -> pa.Table:
    """Return the images with lost, new or relabelled detections, as `runs diff` matches them, and their number.

    Only labels that both models have count: no other label can be right or wrong on both sides.
    """
    if not against:
        raise BadRequest("the reason disagree needs other results: --against with a run, name@version or view")
    old, new = side_of_view(view), side(tables, store, against)
    if new == NOTHING:
        raise BadRequest("nothing is published: name a run, name@version or view with --against")
    known = [set(labels_of(store, shown)) for shown in (old, new)]
    labels = sorted(known[0] & known[1]) if all(known) else None
    if labels == []:
        raise BadRequest(f"{old.model_name} and {new.model_name} have no label in common: disagree compares labels")
    digests = sql.sql("select media_sha256 from opened where not reviewed").to_arrow_table()
    with compared(tables, old, new, digests["media_sha256"].combine_chunks()) as comparison:
        return comparison.sql.sql(_DIFFERING, params={"labels": labels}).to_arrow_table()


def _farthest(sql: duckdb.DuckDBPyConnection, view: View, wanted: Selection) -> pa.Table:
    """Return the images that are farthest from the reviewed ones and from each other: media_sha256, value, place."""
    embedder = embedder_named(sql, wanted.embedder, view.inference_key)
    key = {"key": view.inference_key, "embedder": embedder.embedder_key}
    ((size,),) = sql.execute(_SIZE, key).fetchall()
    most = (_VECTORS_MIB << 20) // (4 * (size or 1))
    labelled, points = (
        sql.sql(_POINTS, params=key | {"reviewed": reviewed, "most": most}).to_arrow_table()
        for reviewed in (True, False)
    )
    things = np.unique(np.array(points["thing"].to_pylist(), object), return_inverse=True)[1]
    places, cosines = farthest_first(vectors_of(points), things, vectors_of(labelled), wanted.count)
    chosen: dict[str, Any] = {
        "media_sha256": points["media_sha256"].take(pa.array(places, pa.int64())),
        "value": pa.array([1 - cosine if np.isfinite(cosine) else None for cosine in cosines], pa.float64()),
        "place": pa.array(range(len(places)), pa.int64()),
    }
    return pa.table(chosen)


def farthest_first(
    vectors: Vectors, things: NDArray[np.int64], reviewed: Vectors, count: int
) -> tuple[list[int], list[float]]:
    """Return up to `count` rows of `vectors` (n, size), each farthest from those before it and from `reviewed`.

    Vectors have length 1. `things` (n,) are numbers of images or events, of which each gives one row. Also returns the
    cosine to the nearest vector, -inf for the first one if none is reviewed. A farthest-first traversal: its radius is
    at most twice the smallest possible one (T. F. Gonzalez, Theoretical Computer Science 38, 1985, p. 293).
    """
    if not len(vectors):  # without rows, their size is unknown
        return [], []
    nearest = np.full(len(vectors), -np.inf, np.float32)
    for first in range(0, len(reviewed), _PART):
        np.maximum(nearest, (vectors @ reviewed[first : first + _PART].T).max(axis=1), out=nearest)
    left, places, cosines = np.ones(len(vectors), bool), list[int](), list[float]()
    while len(places) < count and left.any():
        at = int(np.argmin(np.where(left, nearest, np.inf)))
        places.append(at)
        cosines.append(float(nearest[at]))
        np.maximum(nearest, vectors @ vectors[at], out=nearest)
        left &= things != things[at]
    return places, cosines
