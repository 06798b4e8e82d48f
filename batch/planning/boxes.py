"""Passes over boxes: the detections that are stored for an inference key, cut out of their images.

results --want--> boxes (id, rank, corners) anti-join rows of the pass --make_todo--> images with their due boxes
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import duckdb

from archive.delta.snapshot import scan
from archive.delta.tables import Tables
from archive.schemas import RESULTS
from batch.planning.passes import PLACES_OF_DUE, Pass

EVERY = float("-inf")
_WANTED = """
    create or replace table boxes as
    with detected_boxes as (
        select md5_number(media_sha256) as id, width_px, height_px, unnest(detections) as d
        from detected where status = 'ok' and md5_number(media_sha256) in (select id from wanted)),
    limits as (select unnest($labels::varchar[]) as label, unnest($scores::double[]) as from_score)
    select id, width_px, height_px, d.rank as rank,
        d.x1_px as x1_px, d.y1_px as y1_px, d.x2_px as x2_px, d.y2_px as y2_px
    from detected_boxes left join limits on d.label = limits.label
    where d.score >= coalesce(from_score, $threshold)::float and d.score >= $least_score::float
        and (len($only::varchar[]) = 0 or list_contains($only::varchar[], d.label))
        and least(d.x2_px::double - d.x1_px, d.y2_px::double - d.y1_px) >= $min_side_px::double
"""
_DUE = """
    create or replace table boxes_due as
    select boxes.*, status is not null as replaces from boxes left join boxes_done using ({ids}) where {due}
"""
_TODO = f"""
    create or replace table boxes_todo as
    with images_due as (
        select id, any_value(width_px) as width_px, any_value(height_px) as height_px,
            bool_or(replaces) as replaces, list({{
                'rank': rank, 'x1_px': x1_px, 'y1_px': y1_px, 'x2_px': x2_px, 'y2_px': y2_px,
                'replaces': replaces}} order by rank) as boxes
        from boxes_due group by id)
    select p.*, i.width_px, i.height_px, i.boxes from (
        with due as (select id, files, replaces from wanted join images_due using (id)), {PLACES_OF_DUE}) p
    join images_due i on i.id = md5_number(p.media_sha256)
"""


@dataclass(frozen=True)
class BoxPass(Pass):
    """A pass over boxes. Rows of `todo` also have width_px and height_px of the image, and `boxes`: rank, corners, and
    whether a failed row is replaced.
    """

    wanted, due, done, todo = "boxes", "boxes_due", "boxes_done", "boxes_todo"

    max_pixels: int
    """Images that failed as larger are due again if they are not larger than this."""

    @property
    @abstractmethod
    def limits(self) -> Mapping[str, object]:
        """Return the conditions on boxes: minimum `scores` by `labels`, `threshold` for other labels, `least_score`
        for all, labels (`only`; empty: all), and the minimum shorter side (`min_side_px`).
        """

    def want(self, sql: duckdb.DuckDBPyConnection, tables: Tables) -> None:
        scan(sql, "detected", tables.existing("results"), RESULTS, self.key["inference_key"])
        sql.execute(_WANTED, dict(self.limits))

    def is_due(self) -> str:
        return f"(status is null or again or too_large and width_px::bigint * height_px <= {self.max_pixels})"

    def make_todo(self, sql: duckdb.DuckDBPyConnection, due: str, whole: bool) -> None:
        sql.execute(_DUE.format(ids=self.ids, due=due))
        sql.execute(_TODO)
