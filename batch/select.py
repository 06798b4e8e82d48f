"""The files of a scope, in SQL: relation `scoped` out of relation `present` (media that are there).

The status of results and samples are about images, not files: `batch/plan.py` looks at them.
"""

from __future__ import annotations

import duckdb
import pyarrow as pa

from archive.query import connect
from archive.scan import scan
from archive.schemas import RESULTS
from archive.tables import Tables
from archive.views import Views
from batch.id_list import read_ids
from batch.scope import Scope
from model_store.errors import BadRequest

_ROWS = {
    "latest-per-camera": """
        from present qualify row_number() over (
            partition by camera_id
            order by doubtful, captured_at_local desc nulls last, path desc) = 1""",
    "camera": "from present where camera_id = $camera",
    "time": """
        from present where captured_at_local >= $start and ($end is null or captured_at_local < $end)""",
    "path": "from present where path glob $path",
    "label": "from present where media_sha256 in (select media_sha256 from shown)",
    "ids": "from present where media_sha256 in (select media_sha256 from listed)",
}
_SHOWN = """
    create or replace temp table shown as
    with boxes as (select media_sha256, unnest(detections) as d from published),
    limits as (select unnest($labels::varchar[]) as label, unnest($scores::double[]) as least)
    select distinct media_sha256 from boxes left join limits on boxes.d.label = limits.label
    where ($label is null or d.label = $label) and d.score >= coalesce(least, $threshold)::float
        and d.score >= $min_score::float and d.score < $max_score::float
"""
_RESOLVED = """
    select distinct media_sha256 from detections
    where ($label is null or label = $label) and if(score is null, $min_score = 0 and $max_score > 1,
        score >= $min_score::float and score < $max_score::float)
"""
"""What a person added has no score, and is there unless scores are asked for."""
EVERY_SCORE = (0.0, 2.0)


def select_scope(sql: duckdb.DuckDBPyConnection, tables: Tables, scope: Scope) -> None:
    """Make relation `scoped`, with the columns of `present`.

    Raises BadRequest when nothing is published that could have labels, or when a list names contents that
    are not there; StorageUnreachable.
    """
    if scope.kind in ("all", "status"):
        sql.execute("create or replace temp view scoped as from present")
        return
    if scope.kind == "label":
        _select_shown(sql, tables, scope)
    elif scope.kind == "ids":
        _select_listed(sql, tables, scope)
    sql.execute(
        f"create or replace temp table chosen as {_ROWS[scope.kind]}", _parameters(scope) or None
    )
    sql.execute("create or replace temp view scoped as from chosen")


def _parameters(scope: Scope) -> dict[str, object]:
    if scope.kind == "time":
        return {
            "start": scope.start.isoformat() if scope.start else "",
            "end": scope.end.isoformat() if scope.end else None,
        }
    return {scope.kind: getattr(scope, scope.kind)} if scope.kind in ("camera", "path") else {}


def _select_shown(sql: duckdb.DuckDBPyConnection, tables: Tables, scope: Scope) -> None:
    view = Views(tables.url).current(upto=tables.published_upto)
    if view is None:
        raise BadRequest(
            "scope 'label' asks the published view, and nothing is published: resight runs publish RUN"
        )
    least, most = EVERY_SCORE
    asked = {
        "label": scope.label,
        "min_score": least if scope.min_score is None else scope.min_score,
        "max_score": most if scope.max_score is None else scope.max_score,
    }
    if view.layers or tables.existing("assertions") is not None:  # the model's word is not the last
        with connect(tables, view) as resolved:
            sql.register("shown_now", resolved.sql(_RESOLVED, params=asked).to_arrow_reader())
            sql.execute("create or replace temp table shown as from shown_now")
            sql.unregister("shown_now")
        return
    scan(sql, "published", tables.existing("results"), RESULTS, view.inference_key)
    thresholds = {
        "labels": list(view.label_thresholds),
        "scores": list(view.label_thresholds.values()),
        "threshold": view.threshold,
    }
    sql.execute(_SHOWN, asked | thresholds)


def _select_listed(sql: duckdb.DuckDBPyConnection, tables: Tables, scope: Scope) -> None:
    assert scope.ids is not None
    listed = read_ids(tables.url, scope.ids)
    sql.register("listed", pa.table({"media_sha256": listed}))
    unknown = sql.sql(
        "select media_sha256 from listed anti join present using (media_sha256) order by 1"
    ).fetchall()
    if unknown:
        some = ", ".join(str(row[0]) for row in unknown[:3])
        raise BadRequest(
            f"{len(unknown)} of {len(listed)} listed images are not in the catalogue, such as {some}; "
            "leave them out, or run 'resight ingest' where they lie"
        )
