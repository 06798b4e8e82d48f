"""Find the detections that look like one: the nearest vectors of `embeddings` that the published view shows.

SimilarSearch --find_similar--> SimilarPage, nearest first. An exact search compares every vector of one embedder by
cosine. From `INDEXED_FROM` vectors on, it uses an index in `folder`, if `rebuild_index` made one of these rows.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from archive.defaults import PRODUCTION
from archive.delta.snapshot import storage_errors
from archive.delta.tables import Tables
from archive.views.publications import view_named
from archive.views.query import bounded, connect
from archive.views.search import MEMORY_MIB
from archive.views.vector_index import INDEXED_FROM, IndexedVectors, VectorIndex, build, find_index
from archive.views.views import NAME, View
from model_store.errors import BadRequest
from model_store.frozen import Frozen

DETECTION_ID = r"[0-9a-f]{64}-[0-9]{1,6}"
MOST_SIMILAR = 1000
AHEAD, FURTHER = 4, 8
"""Nearest vectors for each detection to return, because some are hidden; and the factor while too few are shown."""
_EMBEDDERS = """
    select embedder_key, array_to_string(list_sort(list(distinct model_name || '@' || model_version)), ', '),
        any_value(margin_frac), count(*) filter (status = 'ok')
    from embeddings where inference_key = $key group by embedder_key order by max(finished_at) desc, embedder_key
"""
_VECTOR = """
    select status, vector from embeddings
    where inference_key = $key and embedder_key = $embedder and media_sha256 = $media_sha256 and rank = $rank
"""
_NEAREST = """
    select media_sha256, rank, array_inner_product(vector::float[{size}], $vector::float[{size}]) as cosine
    from embeddings
    where inference_key = $key and embedder_key = $embedder and status = 'ok'
        and not (media_sha256 = $media_sha256 and rank = $rank)
    order by cosine desc, media_sha256, rank limit $most
"""
_SHOWN = """
    select n.media_sha256 || '-' || n.rank as detection_id, n.cosine, d.label, d.score, n.media_sha256, n.rank,
        d.source_root, d.path, d.camera_id, d.captured_at_corrected, d.x1_px, d.y1_px, d.x2_px, d.y2_px
    from nearest n join detections d using (media_sha256, rank)
    order by n.cosine desc, n.media_sha256, n.rank
"""


@dataclass(frozen=True, slots=True)
class Embedder:
    """An embedder, with one crop margin, and the number of its vectors; `model` as in `Classified`."""

    embedder_key: str
    model: str
    margin_frac: float
    vectors: int

    def __str__(self) -> str:
        return f"{self.embedder_key[:12]} is {self.model} with margin {self.margin_frac:g} ({self.vectors} vectors)"


class SimilarOptions(Frozen):
    """Choice of view and embedder, and the number of detections to return."""

    view: str = Field(default=PRODUCTION, json_schema_extra={"pattern": f"^{NAME.pattern}$"})
    embedder: str = Field(
        default="", description="embedder_key, its first digits, or name@version; default: the only one"
    )
    limit: int = Field(default=20, ge=1, le=MOST_SIMILAR)
    exact: bool = Field(default=False, description="compare every vector, also if there is an index")


class SimilarSearch(SimilarOptions):
    """A search for the detections that look like one; `folder` has the indexes, none if it is empty."""

    folder: str = ""
    detection: str = Field(description="<media_sha256>-<rank>", json_schema_extra={"pattern": f"^{DETECTION_ID}$"})

    def answer(self, tables: Tables, within_s: float) -> SimilarPage:
        """Return the similar detections. Raises as `find_similar`."""
        return find_similar(tables, self, within_s)


class SimilarPage(Frozen):
    """Detections with the columns of `_SHOWN`, nearest first; `model` made the vectors.

    `note` is the reason why a search of many vectors was exact, empty if none is needed.
    """

    view: View
    embedder_key: str
    model: str
    is_exact: bool
    note: str
    detections: list[dict[str, Any]]


def find_similar(tables: Tables, wanted: SimilarSearch, within_s: float) -> SimilarPage:
    """Return the detections of a view that are most similar to one of its inference key.

    Raises BadRequest for an invalid id, or without a vector to compare. Raises DeadlinePassed, StorageUnreachable.
    """
    view, since_s = view_named(tables, wanted.view), time.monotonic()
    key, media_sha256, rank = view.inference_key, *parts_of(wanted.detection)
    in_time = partial(bounded, within_s=within_s, name="the search", hint="use resight sql", since_s=since_s)
    with (
        storage_errors(tables),
        connect(tables, view, memory_mib=MEMORY_MIB, statement=_NEAREST, scans=True) as sql,
        in_time(sql),
    ):
        embedder = embedder_named(sql, wanted.embedder, key)
        same = {"key": key, "embedder": embedder.embedder_key, "media_sha256": media_sha256, "rank": rank}
        status, vector = next(iter(sql.execute(_VECTOR, same).fetchall()), (None, []))
        if status != "ok":
            reason = "its crop failed" if status else "the view's inference key has no such row"
            raise BadRequest(f"no vector of {wanted.detection} by {embedder.model}: {reason}")
        index, note = _index(tables, wanted, IndexedVectors(key, embedder.embedder_key), embedder.vectors)
        nearest, most = _NEAREST.format(size=len(vector)), AHEAD * wanted.limit
        while True:
            if index:
                near = _others(index.nearest(np.array(vector, np.float32), most + 1), media_sha256, rank)
            else:
                near = sql.sql(nearest, params={**same, "vector": vector, "most": most}).to_arrow_table()
            with connect(tables, view, near["media_sha256"].unique(), statement=_SHOWN) as of_few, in_time(of_few):
                of_few.register("nearest", near)
                shown = of_few.sql(_SHOWN).to_arrow_table().to_pylist()
            if len(shown) >= wanted.limit or (len(near) < most and not index):
                break
            if len(near) < most:
                index, note = None, "the index found too few that the view shows"
            else:
                most *= FURTHER
    return SimilarPage(
        view=view,
        embedder_key=embedder.embedder_key,
        model=embedder.model,
        is_exact=index is None,
        note=note,
        detections=shown[: wanted.limit],
    )


def rebuild_index(tables: Tables, wanted: SimilarOptions, folder: Path) -> tuple[Embedder, VectorIndex]:
    """Build the index of an embedder's vectors.

    Raises BadRequest, also for fewer than `INDEXED_FROM` vectors; StorageUnreachable, StorageFull.
    """
    view = view_named(tables, wanted.view)
    with storage_errors(tables), connect(tables, view, statement=_EMBEDDERS, scans=True) as sql:
        embedder = embedder_named(sql, wanted.embedder, view.inference_key)
    if embedder.vectors < INDEXED_FROM:
        raise BadRequest(f"{embedder.vectors} vectors need no index: below {INDEXED_FROM}, searches are exact")
    return embedder, build(tables, IndexedVectors(view.inference_key, embedder.embedder_key), folder)


def _index(tables: Tables, wanted: SimilarSearch, of: IndexedVectors, vectors: int) -> tuple[VectorIndex | None, str]:
    """Return the index to use, or none and the reason."""
    if vectors < INDEXED_FROM or wanted.exact or not wanted.folder:
        return None, ""
    found = find_index(tables, of, Path(wanted.folder))
    if isinstance(found, VectorIndex):
        return found, ""
    return None, f"all {vectors} vectors were compared, which is slow: {found}; make it with resight similar --rebuild"


def _others(near: pa.Table, media_sha256: str, rank: int) -> pa.Table:
    """Return the rows of other detections than the given one."""
    return near.filter((pc.field("media_sha256") != media_sha256) | (pc.field("rank") != rank))


def parts_of(detection: str) -> tuple[str, int]:
    """Return media_sha256 and rank of a detection. Raises BadRequest."""
    if not re.fullmatch(DETECTION_ID, detection):
        raise BadRequest(f"invalid detection '{detection[:80]}': use <media_sha256>-<rank>, as in embeddings")
    media_sha256, _, rank = detection.rpartition("-")
    return media_sha256, int(rank)


def embedder_named(sql: duckdb.DuckDBPyConnection, name: str, inference_key: str) -> Embedder:
    """Return the named embedder of relation `embeddings`, or the only one. Raises BadRequest that lists them."""
    embedders = [Embedder(*row) for row in sql.execute(_EMBEDDERS, {"key": inference_key}).fetchall()]
    if not embedders:
        raise BadRequest(f"no embeddings for inference key {inference_key[:12]}…: run resight embed --model NAME first")
    matching = [one for one in embedders if name in ("", *one.model.split(", ")) or one.embedder_key.startswith(name)]
    if len(matching) == 1:
        return matching[0]
    words = "several embedders" if matching else f"unknown embedder '{name[:80]}'"
    raise BadRequest(f"{words} of these detections, name one: {'; '.join(map(str, matching or embedders))}")
