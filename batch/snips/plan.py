"""Which snips are not there: detections that are shown, of the images of a run, anti-join `snips`.

(tables, Plan of the run, settings) -> SnipPlan(how many images and snips, and what is to be done in windows)
In the scratch database of the plan, over its relations `wanted` and `scoped`; the driver holds counts only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa
from deltalake import DeltaTable

from archive.scan import scan
from archive.schemas import RESULTS, SNIPS
from archive.scratch import Scratch, windows
from archive.tables import Tables
from batch.plan import PLACES_OF_DUE, Plan
from batch.policy import Snips
from batch.snips.settings import Cut, cut_of
from batch.spec import RunSpec
from model_store.store import ModelVersion

TRIED_AGAIN = ("access", "changed", "differs")
"""Failures that a later run tries again; `too_large` too, where its limit lets the image through."""
_WANTED = """
    create or replace table snips_wanted as
    with seen as (
        select md5_number(media_sha256) as id, width_px, height_px,
            list_filter(detections, lambda d: d.score >= least[d.class_id + 1]) as shown
        from snips_results, snips_least where status = 'ok')
    select id, width_px, height_px, list_transform(shown, lambda d: {
        'rank': d.rank, 'x1_px': d.x1_px, 'y1_px': d.y1_px, 'x2_px': d.x2_px, 'y2_px': d.y2_px}) as boxes
    from seen where len(shown) > 0 and id in (select id from wanted)
"""
_DONE = """
    create or replace table snips_done as
    select md5_number(media_sha256) as id, status, error_code from snips_rows
    where settings_key = $settings_key
"""
_ROWS_DUE = """
    create or replace table snips_todo as
    select p.*, w.width_px, w.height_px, w.boxes from (
        with due as (
            select id, files, status is not null as replaces
            from snips_wanted join wanted using (id) left join snips_done using (id)
            where status is null or status = 'failed' and (error_code in (select unnest($tried_again))
                or error_code = 'too_large' and width_px::bigint * height_px <= $max_pixels)), %s
    ) p join snips_wanted w on w.id = md5_number(p.media_sha256)
"""
_FACTS = """
    select (select count(*) from snips_wanted), count(*), coalesce(sum(len(boxes)), 0)::bigint,
        coalesce(sum(size_bytes), 0)::bigint from snips_todo
"""


@dataclass(frozen=True)
class SnipPlan:
    """`wanted`, `todo`: images that show something, and those of them without snips; `files`: snips of the
    latter; `todo_bytes`: size of the images to read. `base` is the snapshot of `snips` that it holds for.
    """

    model: ModelVersion
    cut: Cut
    wanted: int
    todo: int
    files: int
    todo_bytes: int
    base: DeltaTable
    scratch: Scratch = field(repr=False, compare=False)

    @property
    def key(self) -> dict[str, str]:
        """What all its rows of `snips` have."""
        return {"inference_key": self.model.info.inference_key, "settings_key": self.cut.key}

    def windows(self, images: int) -> Iterator[pa.Table]:
        """Columns of `Plan.windows`, the image's width_px and height_px, and boxes (rank and corners)."""
        yield from windows(self.scratch.sql, "snips_todo", images)  # and the database lives as long

    def some(self, images: int) -> pa.Table:
        """So many of them, spread over all: the same ones each time."""
        step = max(1, self.todo // max(1, images))
        spread = f"from snips_todo where rowid % {step} = 0 order by rowid limit {images}"
        return self.scratch.sql.sql(spread).to_arrow_table()

    def roots(self) -> list[str]:
        """The archives that it reads from."""
        found = self.scratch.sql.sql("select distinct source_root from snips_todo order by 1")
        return [str(row[0]) for row in found.fetchall()]


def plan_snips(tables: Tables, plan: Plan, spec: RunSpec, read_only: bool = False) -> SnipPlan:
    """Of images without a result yet it knows nothing: plan when the run has seen them.

    With `read_only`, no table is created. Raises StorageUnreachable.
    """
    key, cut = (
        plan.model.info.inference_key,
        cut_of(spec.snips or Snips(), plan.model.detector_config),
    )
    rows = (tables.existing if read_only else tables.snapshot)("snips")
    sql = plan.scratch.sql
    scan(sql, "snips_results", tables.existing("results"), RESULTS, key)
    scan(sql, "snips_rows", rows, SNIPS, key)
    least = pa.table({"least": pa.array([cut.least], pa.list_(pa.float32()))})
    sql.register("snips_least", least)
    sql.execute(_WANTED)
    sql.execute(_DONE, {"settings_key": cut.key})
    limits = {"tried_again": list(TRIED_AGAIN), "max_pixels": spec.megapixels * 1_000_000}
    sql.execute(_ROWS_DUE % PLACES_OF_DUE, limits)
    wanted, todo, files, todo_bytes = (int(value) for value in sql.sql(_FACTS).fetchall()[0])
    return SnipPlan(
        model=plan.model,
        cut=cut,
        wanted=wanted,
        todo=todo,
        files=files,
        todo_bytes=todo_bytes,
        base=rows,  # type: ignore[arg-type]  # None only when read_only
        scratch=plan.scratch,
    )
