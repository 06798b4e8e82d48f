"""Define a pass over the archive: what it wants, the table of its rows, its stage and its counts.

Pass --plan_pass--> Plan --stage--> rows --Committer--> its table --read_back--> Counts

There are four: DetectPass here, and the BoxPasses: SnipPass in `batch/crops/plan.py`, ClassifyPass in
`batch/classify/plan.py` and EmbedPass in `batch/embed/plan.py`. Planning, streaming, commits, accounting, dry runs and
reports are the same for all and read what differs from here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import duckdb

from archive.delta.result_columns import shows_nothing
from archive.delta.scratch_db import create_lists
from archive.delta.snapshot import scan
from archive.delta.tables import Tables
from archive.schemas import RESULTS
from model_store.store import ModelVersion

if TYPE_CHECKING:
    from batch.planning.plan import Plan
    from batch.runs.accounting import Counts

TRIED_AGAIN = ("access", "changed", "model", "differs")
"""Error codes of failures that can have another cause than the image: every later run retries them."""
DAMAGED = "damaged_tolerated"
"""Decode note of a file of which only a part is readable (`model_store/images/decode.py`)."""
_SEVERAL = """
    select media_sha256, list({'source_root': source_root, 'path': path} order by source_root, path) as places,
        any_value(size_bytes) as size_bytes, any_value(quick_digest) as quick_digest, any_value(replaces) as replaces
    from scoped join due on id = md5_number(media_sha256)
    where files > 1 and hash(id) % getvariable('parts') = getvariable('part') group by media_sha256
"""
_PLACES_OF_SEVERAL = "(select unnest(range(files)) from due where files > 1)"
_PLACES = """
    select media_sha256, source_root, path, [] as elsewhere, size_bytes, quick_digest, replaces from ({alone})
    union all
    select media_sha256, places[1].source_root, places[1].path, places[2:], size_bytes, quick_digest, replaces
    from several
"""
_ALONE = "from scoped join due on id = md5_number(media_sha256) where files = 1"
_DUE = "select id, files, status is not null as replaces from wanted left join done using (id) where {due}"
_OTHERS = "select *, false as replaces from scoped where md5_number(media_sha256) not in (select id from due)"
_COPIED = "select id, files, false as replaces from wanted where files > 1"
"""`_ALONE` and `_DUE` for an empty `done`, without a join of everything with itself."""


@dataclass(frozen=True)
class Pass(ABC):
    """A pass of one model. Subclasses define it; its units (images or detections) are what is counted.

    table   table of its rows; `key` and the column `row` identify a row there
    wanted  relation of the units of the scope; `ids`: its columns that identify one; `counted`: SQL that counts them
    due     relation of the units without a finished row; `todo`: their images, with places; `done`: status of rows
    figures fields of Counts, as SQL of a row of `table`; Counts has their sums over the rows of the run
    line    accounting line, with the fields of Counts and `sign`
    """

    table: ClassVar[str]
    units: ClassVar[str] = "images"
    row: ClassVar[str] = "media_sha256"
    wanted: ClassVar[str]
    due: ClassVar[str]
    done: ClassVar[str]
    todo: ClassVar[str]
    ids: ClassVar[str] = "id"
    counted: ClassVar[str] = "count(*)"
    line: ClassVar[str]
    event: ClassVar[str] = "progress"
    by_node: ClassVar[str] = "images_by_node"
    needs_replica: ClassVar[bool] = True
    compacted: ClassVar[tuple[str, ...]] = ()

    model: ModelVersion

    @property
    @abstractmethod
    def key(self) -> Mapping[str, str]:
        """Return the columns that have one value in all rows of this pass, `inference_key` first."""

    @property
    @abstractmethod
    def figures(self) -> Mapping[str, str]:
        """Return SQL of a row of `table` for each field of Counts; see `figures` above."""

    def want(self, sql: duckdb.DuckDBPyConnection, tables: Tables) -> None:  # noqa: B027
        """Make `wanted` for the images of the relation `wanted`, if that is another relation."""

    def is_due(self) -> str:
        """Return the SQL condition on a unit with its `done` columns, unless the scope names a status."""
        return "(status is null or again)"

    @abstractmethod
    def make_todo(self, sql: duckdb.DuckDBPyConnection, due: str, whole: bool) -> None:
        """Make `due` and `todo`. `whole`: no unit has a row yet."""

    def written(self, tables: Tables) -> tuple[str, ...]:
        """Return the folders into which the pass writes."""
        return (tables.url,)

    def prepare(self, tables: Tables) -> None:  # noqa: B027
        """Write what rows refer to, before the first one."""

    @abstractmethod
    def stage(self, spec: Any) -> tuple[type, tuple[Any, ...], int]:
        """Return the class of the stage, its arguments after the first, and the images of a chunk."""

    def facts(self, plan: Plan) -> dict[str, Any]:
        """Return the inputs and counts of the plan, for its log event and the dry run."""
        return {}

    def metrics(self, plan: Plan) -> dict[str, Any]:
        """Return the fields of `metrics` of a sealed run, in addition to its times."""
        return {}

    def inputs(self) -> dict[str, Any]:
        """Return the fields of `metrics` of the first event that a resumed run needs, in addition to its tables."""
        return {}

    def reported(self, plan: Plan) -> dict[str, Any]:
        """Return the fields that only reports of this pass have."""
        return {}

    def counts(self, counts: Counts, plan: Plan | None = None) -> dict[str, int]:
        """Return the counts by the names that reports of this pass use; `plan` is None in progress events."""
        return asdict(counts)

    def noted(self, counts: Counts) -> dict[str, int]:
        """Return counts apart from the accounts, for `metrics` of a sealed run and its report."""
        return {}

    def nothing_worked(self, plan: Plan, counts: Counts, failed_ever: int, external: int) -> tuple[int, str] | None:
        """Return how many units failed, and which, if the run must not count as a success."""
        if counts.failed and counts.failed == counts.inferred:
            return counts.failed, "this run has tried failed"
        return None


@dataclass(frozen=True)
class DetectPass(Pass):
    """Detect in every image of a scope: a row of `results` for each image."""

    table = "results"
    wanted, due, done, todo = "wanted", "todo", "done", "todo"
    line = "requested {requested} {sign} ok {ok} + empty {empty} + failed {failed} + reused {reused}"
    compacted = ("results", "snips")

    @property
    def key(self) -> Mapping[str, str]:
        return {"inference_key": self.model.info.inference_key}

    @property
    def figures(self) -> Mapping[str, str]:
        """An image is `ok` if it shows a detection at the model's thresholds, else `empty`."""
        shown = self.model.detector_config.thresholds
        blank = shows_nothing(shown.default, shown.per_label)
        return {
            "ok": f"status = 'ok' and not ({blank})",
            "empty": f"status = 'ok' and ({blank})",
            "failed": "status = 'failed'",
            "detections": "n_detections",
            "partly_decoded": f"decode_note like '%{DAMAGED}%'",
        }

    def make_todo(self, sql: duckdb.DuckDBPyConnection, due: str, whole: bool) -> None:
        places = _make_places(sql, _COPIED, _OTHERS) if whole else _make_places(sql, _DUE.format(due=due))
        sql.execute(f"create table todo as {places}")

    def stage(self, spec: Any) -> tuple[type, tuple[Any, ...], int]:
        from batch.pipeline import detect_stage
        from batch.runs.spec import images_per_chunk

        size = images_per_chunk(spec.chunk, self.model.config.preprocess)
        return detect_stage.DetectStage, (spec, self.model), size

    def facts(self, plan: Plan) -> dict[str, Any]:
        return {
            "inference_key": self.model.info.inference_key,
            "scope": plan.scope.words(),
            "files": plan.files,
            "requested": plan.requested,
            "reused": plan.reused,
            "to_infer": plan.todo,
            "bytes": plan.todo_bytes,
        }

    def metrics(self, plan: Plan) -> dict[str, Any]:
        return {"population": plan.population}

    def noted(self, counts: Counts) -> dict[str, int]:
        return {"partly_decoded": counts.partly_decoded, "failed_before": counts.failed_before}

    def nothing_worked(self, plan: Plan, counts: Counts, failed_ever: int, external: int) -> tuple[int, str] | None:
        """Return it also if every image of the scope has failed, in this run or before; not with scope status
        `missing`, where a single new image may be damaged. The images that this run tried may all be damaged.
        """
        if counts.requested and failed_ever == counts.requested and plan.scope.status != "missing":
            return failed_ever, "of this scope have failed"
        return super().nothing_worked(plan, counts, failed_ever, external) if external else None


def _make_places(sql: duckdb.DuckDBPyConnection, due: str, alone: str = _ALONE) -> str:
    """Return SQL of the places of the images of a query (id, files, replaces), one row per image."""
    sql.execute(f"create or replace temp table due as {due}")
    create_lists(sql, "several", _PLACES_OF_SEVERAL, _SEVERAL)
    return _PLACES.format(alone=alone)


EVERY = float("-inf")
_BOXES = """
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
_BOXES_DUE = """
    create or replace table boxes_due as
    select boxes.*, status is not null as replaces from boxes left join boxes_done using ({ids}) where {due}
"""
_IMAGES_DUE = """
    select id, any_value(width_px) as width_px, any_value(height_px) as height_px,
        bool_or(replaces) as replaces, list({
            'rank': rank, 'x1_px': x1_px, 'y1_px': y1_px, 'x2_px': x2_px, 'y2_px': y2_px,
            'replaces': replaces} order by rank) as boxes
    from boxes_due where hash(id) % getvariable('parts') = getvariable('part') group by id
"""
_DUE_BOXES = """
    create or replace table boxes_todo as
    select p.*, i.width_px, i.height_px, i.boxes from ({places}) p
    join images_due i on i.id = md5_number(p.media_sha256)
"""


@dataclass(frozen=True)
class BoxPass(Pass):
    """A pass over boxes: the detections that are stored for an inference key, cut out of their images.

    Rows of `todo` also have width_px and height_px of the image, and `boxes`: rank, corners, and whether a failed row
    is replaced.
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
        sql.execute(_BOXES, dict(self.limits))

    def is_due(self) -> str:
        return f"(status is null or again or too_large and width_px::bigint * height_px <= {self.max_pixels})"

    def make_todo(self, sql: duckdb.DuckDBPyConnection, due: str, whole: bool) -> None:
        sql.execute(_BOXES_DUE.format(ids=self.ids, due=due))
        create_lists(sql, "images_due", "boxes_due", _IMAGES_DUE)
        places = _make_places(sql, "select id, files, replaces from wanted join images_due using (id)")
        sql.execute(_DUE_BOXES.format(places=places))
