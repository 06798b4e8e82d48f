"""Select the files of a scope in SQL: relation `scoped` from relation `present` (media that are present).

The status of results concerns images, not files, and comes next; then `latest_images`, then a sample
(`batch/planning/plan.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import duckdb
import pyarrow as pa

from archive.catalogue.known_names import MAX_NAMES, require_known, suggested
from archive.delta.snapshot import scan
from archive.delta.tables import Tables
from archive.schemas import RESULTS
from archive.views.query import connect
from archive.views.views import View, Views
from batch.planning.id_list import read_ids
from batch.runs.scope import MediaScope, in_words
from model_store.errors import BadRequest

_CONDITIONS = {
    "camera": "camera_id in (select unnest($camera::varchar[]))",
    "deployment": "deployment_id in (select unnest($deployment::varchar[]))",
    "location": "location in (select unnest($location::varchar[]))",
    "since": "captured_at_corrected >= $since",
    "until": "captured_at_corrected < $until",
    "folder": "starts_with(source_root || '/' || path, $folder || '/')",
    "path": "path glob $path",
}
_OF_LABEL = ("label", "min_score", "max_score")
_SHOWS_LABEL = "media_sha256 in (select media_sha256 from shown)"
_OF_LIST = "media_sha256 in (select media_sha256 from listed)"
_SHOWN = """
    create or replace temp table shown as
    with boxes as (select media_sha256, unnest(detections) as d from published),
    limits as (select unnest($labels::varchar[]) as label, unnest($scores::double[]) as min_score)
    select distinct media_sha256 from boxes left join limits on boxes.d.label = limits.label
    where ($label is null or d.label = $label) and d.score >= coalesce(limits.min_score, $threshold)::float
        and d.score >= $min_score::float and d.score < $max_score::float
"""
_RESOLVED = """
    select distinct media_sha256 from detections
    where ($label is null or label = $label) and if(score is null, $min_score = 0 and $max_score > 1,
        score >= $min_score::float and score < $max_score::float)
"""
"""A detection that a person added has no score; it is included unless a score is given."""
EVERY_SCORE = (0.0, 2.0)


def select_scope(
    sql: duckdb.DuckDBPyConnection,
    tables: Tables,
    scope: MediaScope,
    view: View | None = None,
    also: Mapping[str, str] | None = None,
) -> None:
    """Make relation `scoped`, with the columns of `present`, of files that match every field of the scope.

    `view`: the view for labels and scores; None: the published one. `also`: SQL of fields that only some scopes have.
    Raises BadRequest if no file matches, and names the field that no file matches. Raises it also if any camera or
    listed image is unknown, or if labels are given and nothing is published. Raises StorageUnreachable.
    """
    if not sql.execute("select 1 from present limit 1").fetchall():
        raise BadRequest(
            f"no image is catalogued in {tables.url}; run 'resight ingest URL' first (a dry run does not), or set "
            "RESIGHT_TABLES"
        )
    given = scope.model_dump(mode="json")
    conditions = {name: _CONDITIONS[name] for name in _CONDITIONS if name in given}
    conditions |= also or {}
    _require_all(sql, "camera", "camera_id", scope.camera)
    _require_all(sql, "deployment", "deployment_id", scope.deployment)
    _require_all(sql, "location", "location", scope.location)
    if scope.ids is not None:
        _select_listed(sql, tables, scope.ids)
        conditions["ids"] = _OF_LIST
    if any(name in given for name in _OF_LABEL):
        view = view or _published(tables)
        _select_shown(sql, tables, scope, view)
        conditions["label"] = _SHOWS_LABEL
    if not conditions:
        sql.execute("create or replace temp view scoped as from present")
        return
    where = " and ".join(conditions.values())
    parameters = {name: given[name] for name in _CONDITIONS if name in given}
    sql.execute(f"create or replace temp table selected as from present where {where}", parameters)
    sql.execute("create or replace temp view scoped as from selected")
    if not sql.execute("select 1 from scoped limit 1").fetchall():
        raise BadRequest(_nothing(sql, tables, given, view, conditions))


def _published(tables: Tables) -> View:
    view = Views(tables.url).current(upto=tables.published_upto)
    if view is None:
        raise BadRequest(
            "--label, --min-score and --max-score require a published view, and nothing is published: "
            "resight runs publish RUN"
        )
    return view


def _require_all(sql: duckdb.DuckDBPyConnection, name: str, column: str, wanted: Sequence[str]) -> None:
    """Raise BadRequest for a camera or deployment without images: a misspelt one must not be ignored silently."""
    if not wanted:
        return
    rows = sql.execute(f"select distinct {column} from present where {column} is not null order by 1").fetchall()
    names = [str(row[0]) for row in rows]
    for each in wanted:
        require_known(name, each, names)


def _select_shown(sql: duckdb.DuckDBPyConnection, tables: Tables, scope: MediaScope, view: View) -> None:
    min_score, max_score = EVERY_SCORE
    parameters = {
        "label": scope.label,
        "min_score": min_score if scope.min_score is None else scope.min_score,
        "max_score": max_score if scope.max_score is None else scope.max_score,
    }
    if view.layers or tables.existing("assertions") is not None:  # these correct the model
        with connect(tables, view, statement=_RESOLVED) as resolved:
            sql.register("shown_now", resolved.sql(_RESOLVED, params=parameters).to_arrow_reader())
            sql.execute("create or replace temp table shown as from shown_now")
            sql.unregister("shown_now")
        return
    scan(sql, "published", tables.existing("results"), RESULTS, view.inference_key)
    thresholds = {
        "labels": list(view.label_thresholds),
        "scores": list(view.label_thresholds.values()),
        "threshold": view.threshold,
    }
    sql.execute(_SHOWN, parameters | thresholds)


def _select_listed(sql: duckdb.DuckDBPyConnection, tables: Tables, ids: str) -> None:
    listed = read_ids(tables.url, ids)
    sql.register("listed", pa.table({"media_sha256": listed}))
    unknown = sql.execute(
        "select media_sha256 from listed anti join present using (media_sha256) order by 1"
    ).fetchall()
    if unknown:
        some = ", ".join(str(row[0]) for row in unknown[:3])
        raise BadRequest(
            f"{len(unknown)} of {len(listed)} listed images are not in the catalogue, such as {some}; "
            "leave them out, or run 'resight ingest' on their folder"
        )


def _nothing(
    sql: duckdb.DuckDBPyConnection,
    tables: Tables,
    given: Mapping[str, Any],
    view: View | None,
    conditions: Mapping[str, str],
) -> str:
    """Return the field that no file matches, and what is available; or the number of files that match each field."""
    alone: list[str] = []
    for name, condition in conditions.items():
        fields = _OF_LABEL if name == "label" else (name,)
        words = in_words({field: given[field] for field in fields if field in given})
        parameters = {name: given[name]} if name in _CONDITIONS else None
        count = f"select count(*) from present where {condition}"
        files = int(sql.execute(count, parameters).fetchall()[0][0])
        if not files:
            return f"no image matches {words}; {_available(sql, tables, name, given, view)}"
        alone.append(f"{words} (files: {files})")
    return f"no image matches all of {', '.join(alone)}; leave one out"


def _available(
    sql: duckdb.DuckDBPyConnection, tables: Tables, name: str, given: Mapping[str, Any], view: View | None
) -> str:
    if name in ("since", "until"):
        times = "select min(captured_at_corrected), max(captured_at_corrected) from present"
        first, last = sql.execute(times).fetchall()[0]
        return f"images were taken from {first} to {last}" if first else "no image has a time"
    if name == "folder":
        roots = sql.execute("select distinct source_root from present order by 1").fetchall()
        names = ", ".join(str(row[0]) for row in roots[:MAX_NAMES])
        return f"catalogued archives: {names}; 'resight ingest' catalogues another"
    if name == "path":
        (example,) = sql.execute("select min(path) from present").fetchall()[0]
        return f"paths are relative to their archive, as in '{example}'"
    if name != "label":
        return f"see: resight sql 'select * from {name}s'"
    scores = "select label, max(score) from detections group by all order by 1"
    with connect(tables, view, statement=scores) as shown:
        best = {str(label): score for label, score in shown.execute(scores).fetchall()}
    label = given.get("label")
    if label is not None and label not in best:
        return suggested(label, list(best))
    score = max(best.values(), default=0.0) if label is None else best[label]
    return f"the best score{' of that label' if label else ''} is {score:.3g}"
