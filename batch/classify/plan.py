"""Which detections are not classified: what a view shows, in a scope, anti-join `classifications`.

(tables, view, classifier, spec) -> CropPlan(how many detections and images, and what is to be done in windows)
What the view shows is by its thresholds, of what the model itself said: layers over it hide and rename, and are
switched off again, so what they hide is classified too. The driver holds counts only (`archive/scratch.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import duckdb
import pyarrow as pa
from deltalake import DeltaTable

from archive.past import PastTables
from archive.scan import scan
from archive.schemas import CLASSIFICATIONS, RESULTS
from archive.scratch import LARGE_MIB, Scratch, windows
from archive.tables import Tables
from archive.views import View, Views
from batch.classify.spec import ClassifySpec
from batch.classify.target import Target, target_of
from batch.plan import (
    PLACES_OF_DUE,
    TRIED_AGAIN,
    latest_images,
    place_images,
    scope_images,
    still_kept,
)
from batch.sample import choose_sample
from model_store.errors import BadRequest, ModelError
from model_store.names import VersionId
from model_store.store import ModelStore, ModelVersion

_WANTED = """
    create table boxes_wanted as
    with boxes as (
        select md5_number(media_sha256) as id, width_px, height_px, unnest(detections) as d
        from detected where status = 'ok' and md5_number(media_sha256) in (select id from wanted)),
    limits as (select unnest($labels::varchar[]) as label, unnest($scores::double[]) as from_score)
    select id, width_px, height_px, d.rank as rank,
        d.x1_px as x1_px, d.y1_px as y1_px, d.x2_px as x2_px, d.y2_px as y2_px
    from boxes left join limits on boxes.d.label = limits.label
    where d.score >= coalesce(from_score, $threshold)::float and d.score >= $least_score::float
        and (len($only::varchar[]) = 0 or list_contains($only::varchar[], d.label))
        and least(d.x2_px::double - d.x1_px, d.y2_px::double - d.y1_px) >= $min_side_px::double
"""
_DONE = """
    create or replace table boxes_done as
    select md5_number(media_sha256) as id, rank, status, error_code from classified
    where classifier_key = $classifier
"""
_DUE = {
    None: """(status is null or status = 'failed' and (error_code in (select unnest($tried_again))
        or error_code = 'too_large' and width_px::bigint * height_px <= $max_pixels))""",
    "missing": "status is null",
    "failed": "status = 'failed'",
}
_ONLY_DUE = """
    delete from boxes_wanted where rowid not in (
        select w.rowid from boxes_wanted w left join boxes_done d on d.id = w.id and d.rank = w.rank where {due})
"""
_BOXES_DUE = """
    create table boxes_due as
    select w.*, status is not null as replaces
    from boxes_wanted w left join boxes_done d on d.id = w.id and d.rank = w.rank where {due}
"""
_IMAGES_DUE = f"""
    create table crops_todo as
    select p.* exclude (replaces), b.width_px, b.height_px, b.boxes from (
        with due as (
            select id, files, false as replaces from wanted where id in (select id from boxes_due)),
        {PLACES_OF_DUE}) p
    join (
        select id, any_value(width_px) as width_px, any_value(height_px) as height_px, list({{
            'rank': rank, 'x1_px': x1_px, 'y1_px': y1_px, 'x2_px': x2_px, 'y2_px': y2_px,
            'replaces': replaces}} order by rank) as boxes
        from boxes_due group by id) b on b.id = md5_number(p.media_sha256)
"""
_FACTS = """
    select (select count(*) from boxes_wanted), (select count(*) from boxes_due), count(*),
        coalesce(sum(size_bytes), 0)::bigint from crops_todo
"""


@dataclass(frozen=True)
class CropPlan:
    """`requested`, `todo`: detections; `images`: those to be read for them, of `todo_bytes`. `base` is the
    snapshot of `classifications` that it holds for.
    """

    model: ModelVersion
    view: View
    target: Target
    requested: int
    todo: int
    images: int
    todo_bytes: int
    base: DeltaTable
    scratch: Scratch = field(repr=False, compare=False)

    @property
    def reused(self) -> int:
        return self.requested - self.todo

    def windows(self, images: int) -> Iterator[pa.Table]:
        """So many images at a time: media_sha256, source_root, path, elsewhere, size_bytes, quick_digest, width_px,
        height_px, and boxes (rank, corners, and whether there is a failed row that its row replaces).
        """
        yield from windows(self.scratch.sql, "crops_todo", images)  # and the database lives as long

    def roots(self) -> list[str]:
        """The archives that it reads from."""
        found = self.scratch.sql.sql("select distinct source_root from crops_todo order by 1")
        return [str(row[0]) for row in found.fetchall()]


def view_to_classify(tables: Tables, store: ModelStore, spec: ClassifySpec) -> View:
    """Raises BadRequest where nothing is published under the name, or its model has no such label."""
    view = Views(tables.url).current(spec.view)
    if view is None:
        raise BadRequest(
            f"nothing is published as {spec.view}, so there are no detections to classify: resight runs publish RUN"
        )
    try:
        known = store.describe(VersionId(view.model_name, view.model_version)).info.labels
    except ModelError:  # the model is gone, its results are there
        return view
    unknown = sorted(set(spec.labels) - set(known))
    if unknown:
        raise BadRequest(
            f"--labels: {view.model_name}@{view.model_version} knows no '{unknown[0]}'; there is: "
            f"{', '.join(known[:50])}"
        )
    return view


def plan_crops(
    tables: Tables,
    view: View,
    model: ModelVersion,
    spec: ClassifySpec,
    read_only: bool = False,
    past: PastTables | None = None,
) -> CropPlan:
    """Plan a classify run; `past` as for `batch.plan.make_plan`. With `read_only`, no table is created.

    Raises StorageUnreachable, and BadRequest when the scope has no image.
    """
    rows = (tables.existing if read_only else tables.snapshot)("classifications")
    target = target_of(view.inference_key, model, spec.margin_frac)
    scratch = Scratch("classify", LARGE_MIB, in_order=False)
    sql = scratch.sql
    then, due = past or tables, _DUE[spec.scope.status]
    with still_kept(past):
        scope_images(sql, then, then.existing("media"), spec.scope)
        scan(sql, "detected", then.existing("results"), RESULTS, view.inference_key)
        sql.execute(_WANTED, _asked(view, spec))
        _look(sql, past.existing("classifications") if past else rows, target)
    limits = {"tried_again": list(TRIED_AGAIN), "max_pixels": spec.megapixels * 1_000_000}
    limits = {} if spec.scope.status else limits
    if spec.scope.status:
        sql.execute(_ONLY_DUE.format(due=due))
    sql.execute("delete from wanted where id not in (select id from boxes_wanted)")
    with still_kept(past):
        latest_images(sql, spec.scope)
        if spec.scope.sample:
            choose_sample(sql, spec.scope.sample)
    sql.execute("delete from boxes_wanted where id not in (select id from wanted)")
    if past:
        with still_kept(past):
            place_images(sql, past, tables.existing("media"))
        _look(sql, rows, target)
    sql.execute(_BOXES_DUE.format(due=due), limits)
    sql.execute(_IMAGES_DUE)
    requested, todo, images, todo_bytes = (int(n) for n in sql.sql(_FACTS).fetchall()[0])
    return CropPlan(
        model=model,
        view=view,
        target=target,
        requested=requested,
        todo=todo,
        images=images,
        todo_bytes=todo_bytes,
        base=rows,  # type: ignore[arg-type]  # None only when read_only
        scratch=scratch,
    )


def _look(sql: duckdb.DuckDBPyConnection, rows: DeltaTable | None, target: Target) -> None:
    """Make the relation `boxes_done` of the rows of a target."""
    scan(sql, "classified", rows, CLASSIFICATIONS, target.inference_key)
    sql.execute(_DONE, {"classifier": target.classifier_key})


def plan_facts(plan: CropPlan) -> dict[str, Any]:
    """What the run is about, for its log, its record and the dry run."""
    return {
        "view": f"{plan.view.name} {plan.view.serial}",
        "inference_key": plan.target.inference_key,
        "classifier_key": plan.target.classifier_key,
        "labels_digest": plan.target.labels_digest,
        "requested": plan.requested,
        "reused": plan.reused,
        "to_classify": plan.todo,
        "images": plan.images,
        "bytes": plan.todo_bytes,
    }


def _asked(view: View, spec: ClassifySpec) -> dict[str, object]:
    return {
        "labels": list(view.label_thresholds),
        "scores": list(view.label_thresholds.values()),
        "threshold": view.threshold,
        "least_score": spec.least_score,
        "only": list(spec.labels),
        "min_side_px": spec.min_side_px,
    }
