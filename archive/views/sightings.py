"""Report on individuals: sightings by camera and week, who is seen together, and how far naming has come.

sightings(tables, view, gap_min), together(tables, view, gap_min) -> rows; readiness(tables, view) -> Readiness
separability(vectors, who, where) -> Separability of the named individuals by their vectors
A sighting is an individual at a camera, until it is not seen there for `gap_min` minutes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from archive.defaults import GAP_MIN, PRODUCTION
from archive.delta.snapshot import storage_errors
from archive.delta.tables import Tables
from archive.views.publications import view_named
from archive.views.query import connect, query
from archive.views.similar import embedder_named
from archive.views.suggestions import GALLERY
from archive.views.vector_index import Vectors, vectors_of
from model_store.frozen import Frozen

_STEPS = """
    select individual_id, name, coalesce(s.camera_id, '') as camera_id, taken_at as taken,
        taken_at - lag(taken_at) over (partition by {place} order by taken_at) as since
    from sightings s join dated using (media_sha256) where taken_at is not null
"""
_BEGINS = "coalesce(epoch(since) > 60 * {gap_min!r}, true)"
_SIGHTINGS = f"""
    with steps as ({_STEPS.format(place="individual_id, s.camera_id")})
    select individual_id, any_value(name) as name, camera_id, strftime(taken, '%G-W%V') as week,
        count(*) filter ({_BEGINS}) as sightings, count(*) as crops, min(taken) as first_local, max(taken) as last_local
    from steps group by individual_id, camera_id, week order by individual_id, camera_id, week
"""
_TOGETHER = f"""
    with steps as ({_STEPS.format(place="s.camera_id")}),
    occasions as (select *, sum(({_BEGINS})::int) over (
        partition by camera_id order by taken range unbounded preceding) as occasion from steps where camera_id <> ''),
    present as (select distinct individual_id, camera_id, occasion from occasions),
    counts as (select individual_id, count(*) as n from present group by individual_id)
    select a.individual_id, b.individual_id as other_id, count(*) as together, any_value(x.n) as occasions,
        any_value(y.n) as other_occasions, together / (occasions + other_occasions - together) as association
    from present a join present b on a.camera_id = b.camera_id and a.occasion = b.occasion
            and a.individual_id < b.individual_id
        join counts x on x.individual_id = a.individual_id join counts y on y.individual_id = b.individual_id
    group by a.individual_id, b.individual_id order by association desc, a.individual_id, b.individual_id
"""
_NAMING = """
    with firsts as (
        select individual_id, count(*) as crops, min(taken_at) as first
        from sightings join dated using (media_sha256) group by 1),
    weeks as (
        select strftime(first, '%G-W%V') as week, count(*) as n from firsts where first is not null group by 1)
    select count(*) as individuals, coalesce(sum(crops), 0)::bigint as named_crops,
        (select count(*) from detections) as shown_detections,
        (select count(*) from detections semi join sightings using (media_sha256, rank)) as assigned,
        median(crops) as median_crops, max(crops) as most_crops, count(*) filter (crops = 1) as with_one_crop,
        coalesce((select map_from_entries(list((week, n) order by week)) from weeks), map {}) as new_by_week
    from firsts
"""


class Separability(Frozen):
    """Separation of individuals by vectors. Only crops of different cameras are compared; null without any.

    `within` and `between` are mean cosines of two crops of one individual, and of two. A query is a crop of an
    individual that is also seen at another camera; it ranks all crops of other cameras. `rank1` is the share of queries
    with a right first crop, and `mean_average_precision` the mean of their average precision.
    """

    within: float | None
    between: float | None
    queries: int
    rank1: float | None
    mean_average_precision: float | None


class Readiness(Frozen):
    """Progress of naming in a view. `assignment_rate` is the share of shown detections with an individual."""

    individuals: int
    named_crops: int
    shown_detections: int
    assignment_rate: float | None
    median_crops: float | None
    most_crops: int | None
    with_one_crop: int
    new_by_week: dict[str, int] = Field(description="individuals by the ISO week of their first crop")
    model: str | None = Field(description="embedder of `separability`; null: no vectors")
    separability: Separability | None


def sightings(tables: Tables, view: str = PRODUCTION, gap_min: float = GAP_MIN) -> pa.Table:
    """Return the sightings of each individual by camera and ISO week, by the corrected time. Raises BadRequest."""
    return query(tables, _SIGHTINGS.format(gap_min=gap_min), view_named(tables, view))


def together(tables: Tables, view: str = PRODUCTION, gap_min: float = GAP_MIN) -> pa.Table:
    """Return each pair of individuals on a common occasion: crops of a camera without a gap above `gap_min`.

    Crops without a camera are left out: they may be of any place. `association` is the simple ratio index
    (Cairns and Schwager 1987): common occasions by those of either. Raises BadRequest.
    """
    return query(tables, _TOGETHER.format(gap_min=gap_min), view_named(tables, view))


def readiness(tables: Tables, view: str = PRODUCTION, embedder: str = "") -> Readiness:
    """Return how far naming has come. Raises BadRequest for an unknown embedder, or several; StorageUnreachable."""
    chosen = view_named(tables, view)
    with storage_errors(tables), connect(tables, chosen, statement=GALLERY + _NAMING, scans=True) as sql:
        (facts,) = sql.sql(_NAMING).to_arrow_table().to_pylist(maps_as_pydicts="strict")
        assigned, shown = facts.pop("assigned"), facts["shown_detections"]
        facts["assignment_rate"] = assigned / shown if shown else None
        key = {"key": chosen.inference_key}
        if (
            not embedder
            and not sql.execute("select 1 from embeddings where inference_key = $key limit 1", key).fetchall()
        ):
            return Readiness(**facts, model=None, separability=None)
        made_by = embedder_named(sql, embedder, chosen.inference_key)
        rows = sql.sql(GALLERY, params=key | {"embedder": made_by.embedder_key}).to_arrow_table()
    columns = [np.array(rows[name].to_pylist(), object) for name in ("individual_id", "camera_id")]
    return Readiness(**facts, model=made_by.model, separability=separability(vectors_of(rows), *columns))


def separability(vectors: Vectors, who: NDArray[Any], where: NDArray[Any]) -> Separability:
    """Compare (n, size) vectors of length 1 of the individuals `who`, at the cameras `where`, both (n,).

    All crops of the query's own camera are left out; Market-1501 (Zheng et al. 2015) keeps those of others there, so
    its figures are not comparable. Crops of equal cosine keep their order.
    """
    sums, counts = np.zeros(2), np.zeros(2, np.int64)
    firsts: list[bool] = []
    precisions: list[float] = []
    for n in range(len(vectors)):
        others = where != where[n]
        cosines, right = vectors[others] @ vectors[n], who[others] == who[n]
        sums += cosines[right].sum(), cosines[~right].sum()
        counts += right.sum(), (~right).sum()
        if right.any():
            ranks = np.flatnonzero(right[np.argsort(-cosines, kind="stable")]) + 1
            firsts.append(bool(ranks[0] == 1))
            precisions.append(float(np.mean(np.arange(1, len(ranks) + 1) / ranks)))
    within, between = (float(s / c) if c else None for s, c in zip(sums, counts, strict=True))
    return Separability(
        within=within,
        between=between,
        queries=len(firsts),
        rank1=float(np.mean(firsts)) if firsts else None,
        mean_average_precision=float(np.mean(precisions)) if precisions else None,
    )
