"""Suggest individuals for detections, by the vectors of `embeddings`. Nothing is stored: a query computes it.

SuggestionSearch --suggest--> SuggestionPage: for each detection the individuals above the view's threshold, best first
The similarity of an individual is the mean cosine of its three crops that are most similar (`similarity`). If none
reaches the threshold, the answer is a new individual. Rejected and retired individuals are not suggested.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from archive.defaults import PRODUCTION
from archive.delta.snapshot import storage_errors
from archive.delta.tables import Tables
from archive.views.publications import view_named
from archive.views.query import bounded, connect
from archive.views.search import MEMORY_MIB
from archive.views.similar import MOST_SIMILAR, embedder_named, parts_of
from archive.views.vector_index import Vectors, vectors_of
from archive.views.views import NAME, View, Views
from model_store.errors import BadRequest
from model_store.frozen import Frozen

TOP = 3
"""Crops of an individual that count: three were right more often than one (docs/reference/individuals.md)."""
_PART = 4096
"""Detections that are compared at once."""
OF_EMBEDDER = "e.inference_key = $key and e.embedder_key = $embedder and e.status = 'ok'"
"""The condition on rows `e` of `embeddings` with a vector."""
_SIGHTED = """
    select s.individual_id, s.detection_id, s.camera_id, e.vector from sightings s join {vectors} e
        on e.media_sha256 = s.media_sha256 and e.rank = s.rank {condition} order by s.individual_id, s.detection_id
"""
GALLERY = _SIGHTED.format(vectors="embeddings", condition=f"and {OF_EMBEDDER}")
_CHOSEN = f"""
    create temp table chosen as
    select d.media_sha256 || '-' || d.rank as detection_id, d.label, d.camera_id, d.captured_at_corrected, d.path,
        s.individual_id, d.media_sha256, d.rank
    from detections d left join sightings s on s.media_sha256 = d.media_sha256 and s.rank = d.rank
    where (($detection is null and s.individual_id is null) or d.media_sha256 || '-' || d.rank = $detection)
        and (d.media_sha256, d.rank) in (select (media_sha256, rank) from embeddings e where {OF_EMBEDDER})
    order by d.captured_at_corrected desc nulls last, detection_id limit $limit
"""
_COMPARED = f"""
    create temp table compared as select e.media_sha256, e.rank, e.vector from embeddings e
    where {OF_EMBEDDER} and (e.media_sha256, e.rank) in (
        select (media_sha256, rank) from chosen union all select (media_sha256, rank) from sightings)
"""
"""All vectors of an answer, in one pass: the table has more than fit into memory."""
_WANTED = """
    select c.* exclude (media_sha256, rank), v.vector from chosen c join compared v using (media_sha256, rank)
    order by c.captured_at_corrected desc nulls last, c.detection_id
"""
_REJECTED = """
    select distinct media_sha256 || '-' || view_rank as detection_id, identity from placed_statements r
    where action = 'reject' and view_rank is not null and not exists (
        select 1 from placed_statements i where i.action = 'identify' and i.media_sha256 = r.media_sha256
            and i.view_rank = r.view_rank and i.identity = r.identity and i.moment > r.moment)
"""
_NAMED = "select individual_id, name from individuals where not retired and merged_into is null"


class SuggestionSearch(Frozen):
    """Choice of detections: one, or else the newest without an individual. `threshold` replaces that of the view."""

    view: str = Field(default=PRODUCTION, json_schema_extra={"pattern": f"^{NAME.pattern}$"})
    embedder: str = Field(
        default="", description="embedder_key, its first digits, or name@version; default: the only one"
    )
    detection: str | None = Field(default=None, description="<media_sha256>-<rank>; default: those of no individual")
    threshold: float | None = Field(default=None, ge=-1, le=1, description="minimum similarity; default: the view's")
    limit: int = Field(default=100, ge=1, le=MOST_SIMILAR, description="number of detections")
    most: int = Field(default=5, ge=1, le=100, description="individuals for each detection")

    def answer(self, tables: Tables, within_s: float) -> SuggestionPage:
        """Return the suggestions. Raises as `suggest`."""
        return suggest(tables, self, within_s)


class Candidate(Frozen):
    """An individual, its similarity, -1 to 1, and its most similar crop."""

    individual_id: str
    name: str | None
    similarity: float
    example: str


class Suggestion(Frozen):
    """A detection, the individual that people stated, and candidates, best first; without both, it `is_new`."""

    detection_id: str
    label: str | None
    camera_id: str | None
    captured_at_corrected: str | None
    path: str
    individual_id: str | None
    candidates: tuple[Candidate, ...]
    is_new: bool


class SuggestionPage(Frozen):
    """Detections with their suggestions, newest first. `model` made the vectors; no similarity is below `threshold`."""

    threshold: float
    embedder_key: str
    model: str
    detections: tuple[Suggestion, ...]


def suggest(tables: Tables, wanted: SuggestionSearch, within_s: float) -> SuggestionPage:
    """Compare detections of a view with the crops of each individual.

    Raises BadRequest for an invalid id, or without a vector to compare. Raises DeadlinePassed, StorageUnreachable.
    """
    view, since_s = view_named(tables, wanted.view), time.monotonic()
    if wanted.detection:
        parts_of(wanted.detection)
    statement = _CHOSEN + _COMPARED + _REJECTED + _NAMED
    with (
        storage_errors(tables),
        connect(tables, view, memory_mib=MEMORY_MIB, statement=statement, scans=True) as sql,
        bounded(sql, within_s, "the search", "use a smaller limit", since_s),
    ):
        embedder = embedder_named(sql, wanted.embedder, view.inference_key)
        same = {"key": view.inference_key, "embedder": embedder.embedder_key}
        asked = same | {"detection": wanted.detection, "limit": wanted.limit}
        sql.execute(_CHOSEN, asked)
        sql.execute(_COMPARED, same)
        rows: list[dict[str, Any]] = sql.sql(_WANTED).to_arrow_table().to_pylist()
        if wanted.detection and not rows:
            raise BadRequest(f"no vector of {wanted.detection} by {embedder.model}: the view shows no such detection")
        gallery: pa.Table = sql.sql(_SIGHTED.format(vectors="compared", condition="")).to_arrow_table()
        rejected, names = set(sql.execute(_REJECTED).fetchall()), dict(sql.execute(_NAMED).fetchall())
    threshold = view.identity_threshold if wanted.threshold is None else wanted.threshold
    vectors, examples = vectors_of(gallery), gallery["detection_id"].to_pylist()
    unique, places = np.unique(np.array(gallery["individual_id"].to_pylist(), object), return_index=True)
    who: list[str] = unique.tolist()
    column_of, found = {name: n for n, name in enumerate(examples)}, list[Suggestion]()
    for first in range(0, len(rows), _PART):
        part = rows[first : first + _PART]
        queries = np.array([row.pop("vector") for row in part], np.float32)
        cosines = queries @ vectors.reshape(-1, queries.shape[1]).T
        own = [(n, column_of[row["detection_id"]]) for n, row in enumerate(part) if row["detection_id"] in column_of]
        for place in own:  # a crop is not evidence for itself
            cosines[place] = -np.inf
        best, nearest = similarity(cosines, places)
        for row, scores, crops in zip(part, best, nearest, strict=True):
            candidates = [
                Candidate(
                    individual_id=who[n], name=names[who[n]], similarity=float(scores[n]), example=examples[crops[n]]
                )
                for n in np.argsort(-scores, kind="stable")
                if scores[n] >= threshold and who[n] in names and (row["detection_id"], who[n]) not in rejected
            ][: wanted.most]
            at = row.pop("captured_at_corrected")
            new = row["individual_id"] is None and not candidates
            shown = {"captured_at_corrected": at and at.isoformat(), "candidates": tuple(candidates), "is_new": new}
            found.append(Suggestion(**row, **shown))
    return SuggestionPage(
        threshold=threshold, embedder_key=embedder.embedder_key, model=embedder.model, detections=tuple(found)
    )


def similarity(cosines: Vectors, places: NDArray[np.int64], top: int = TOP) -> tuple[Vectors, NDArray[np.int64]]:
    """Return for (n, crops) cosines the (n, individuals) means of the `top` highest, and the columns of the highest.

    The crops of an individual are neighbours, from its column in `places` on. A cosine of -inf does not count; an
    individual without another one has the similarity -inf.
    """
    means = np.full((len(cosines), len(places)), -np.inf, np.float32)
    nearest = np.zeros(means.shape, np.int64)
    for n, part in enumerate(np.split(cosines, places[1:], axis=1) if len(places) else []):
        highest = -np.sort(-part, axis=1)[:, :top]
        counts = np.isfinite(highest).sum(axis=1)
        sums = np.where(np.isfinite(highest), highest, 0).sum(axis=1)
        np.divide(sums, counts, out=means[:, n], where=counts > 0)
        nearest[:, n] = places[n] + part.argmax(axis=1)
    return means, nearest


def set_threshold(tables: Tables, name: str, threshold: float, reason: str) -> View:
    """Publish the view with another threshold of suggestions; no result changes. Raises BadRequest, Conflict."""
    if not -1 <= threshold <= 1:
        raise BadRequest(f"invalid threshold {threshold:g}: a cosine is between -1 and 1")
    view = view_named(tables, name)
    if view.identity_threshold == threshold:
        return view
    changed = {"identity_threshold": threshold, "reason": reason or f"suggestions from a cosine of {threshold:g}"}
    return Views(tables.url).publish(view.model_copy(update=changed), after=view.serial)
