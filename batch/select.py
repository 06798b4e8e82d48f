"""The files of a scope, in SQL: relation `scoped` out of relation `present` (media that are there).

The status of results is about images, not files, and comes next; then `keep_latest`, then a sample: `batch/plan.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import duckdb
import pyarrow as pa

from archive.query import connect
from archive.scan import scan
from archive.schemas import RESULTS
from archive.tables import Tables
from archive.views import View, Views
from batch.id_list import read_ids
from batch.scope import MediaScope, in_words
from model_store.errors import BadRequest

_CONDITIONS = {
    "camera": "camera_id in (select unnest($camera::varchar[]))",
    "since": "captured_at_local >= $since",
    "until": "captured_at_local < $until",
    "path": "path glob $path",
}
_OF_LABEL = ("label", "min_score", "max_score")
_SHOWS_LABEL = "media_sha256 in (select media_sha256 from shown)"
_OF_LIST = "media_sha256 in (select media_sha256 from listed)"
_LATEST = """
    create temp table latest as
    from scoped where md5_number(media_sha256) in (select id from wanted)
    qualify row_number() over (
        partition by camera_id
        order by doubtful, captured_at_local desc nulls last, path desc, source_root desc) = 1;
    create or replace temp view scoped as from latest;
"""
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
MOST_NAMES = 50


def select_scope(
    sql: duckdb.DuckDBPyConnection,
    tables: Tables,
    scope: MediaScope,
    view: View | None = None,
    also: Mapping[str, str] | None = None,
) -> None:
    """Make relation `scoped`, with the columns of `present`, of files that meet every field of the scope.

    `view` is the one whose labels count; None: what is published. `also`: SQL of fields that only some scopes have.
    Raises BadRequest when there is no such file, and names the field that no file meets; also when one of several
    cameras or listed images is not there, or nothing is published that could have labels. Raises StorageUnreachable.
    """
    if not sql.sql("select 1 from present limit 1").fetchall():
        raise BadRequest(
            f"no image is catalogued in {tables.url}; run 'resight ingest URL' first, or set "
            "RESIGHT_TABLES"
        )
    given = scope.model_dump(mode="json")
    conditions = {name: _CONDITIONS[name] for name in _CONDITIONS if name in given}
    conditions |= also or {}
    _require_cameras(sql, scope.camera)
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
    asked = {name: given[name] for name in _CONDITIONS if name in given}
    sql.execute(f"create or replace temp table selected as from present where {where}", asked)
    sql.execute("create or replace temp view scoped as from selected")
    if not sql.sql("select 1 from scoped limit 1").fetchall():
        raise BadRequest(_nothing(sql, tables, given, view, conditions))


def keep_latest(sql: duckdb.DuckDBPyConnection) -> None:
    """Leave in `scoped` the newest file of each camera, of the files of images in `wanted` (id)."""
    sql.execute(_LATEST)


def _published(tables: Tables) -> View:
    view = Views(tables.url).current(upto=tables.published_upto)
    if view is None:
        raise BadRequest(
            "--label, --min-score and --max-score are about the published view, and nothing is published: "
            "resight runs publish RUN"
        )
    return view


def _require_cameras(sql: duckdb.DuckDBPyConnection, cameras: Sequence[str]) -> None:
    """Each of several is there: one that is misspelt must not be left out in silence."""
    if not cameras:
        return
    rows = sql.sql("select distinct camera_id from present where camera_id is not null order by 1")
    known = [str(row[0]) for row in rows.fetchall()]
    for camera in cameras:
        if camera not in known:
            raise BadRequest(f"no image of camera '{camera}'; {_near(camera, known)}")


def _select_shown(
    sql: duckdb.DuckDBPyConnection, tables: Tables, scope: MediaScope, view: View
) -> None:
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


def _select_listed(sql: duckdb.DuckDBPyConnection, tables: Tables, ids: str) -> None:
    listed = read_ids(tables.url, ids)
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


def _nothing(
    sql: duckdb.DuckDBPyConnection,
    tables: Tables,
    given: Mapping[str, Any],
    view: View | None,
    conditions: Mapping[str, str],
) -> str:
    """Return the field that no file meets, and what there is; or how many files meet each, where all have some."""
    alone: list[str] = []
    for name, condition in conditions.items():
        fields = _OF_LABEL if name == "label" else (name,)
        words = in_words({field: given[field] for field in fields if field in given})
        asked = {name: given[name]} if name in _CONDITIONS else None
        count = f"select count(*) from present where {condition}"
        files = int(sql.execute(count, asked).fetchall()[0][0])
        if not files:
            return f"no image matches {words}; {_what_is_there(sql, tables, name, given, view)}"
        alone.append(f"{words} (files: {files})")
    return f"no image matches all of {', '.join(alone)}; leave one out"


def _what_is_there(
    sql: duckdb.DuckDBPyConnection,
    tables: Tables,
    name: str,
    given: Mapping[str, Any],
    view: View | None,
) -> str:
    if name in ("since", "until"):
        times = "select min(captured_at_local), max(captured_at_local) from present"
        first, last = sql.sql(times).fetchall()[0]
        return f"images were taken from {first} to {last}" if first else "no image has a time"
    if name == "path":
        (example,) = sql.sql("select min(path) from present").fetchall()[0]
        return f"paths begin below their archive, as in '{example}'"
    if name != "label":
        return f"see: resight sql 'select * from {name}s'"
    with connect(tables, view) as shown:
        rows = shown.sql("select label, max(score) from detections group by all order by 1")
        best = {str(label): score for label, score in rows.fetchall()}
    label = given.get("label")
    if label is not None and label not in best:
        return _near(label, list(best))
    score = max(best.values(), default=0.0) if label is None else best[label]
    return f"the best score{' of that label' if label else ''} is {score:.3g}"


def _near(name: str, known: Sequence[str]) -> str:
    """Return the known names that are like `name`, or all of them where none is."""
    near = get_close_matches(name, known)
    if near:
        return f"did you mean '{near[0]}'?"
    more = f" and {len(known) - MOST_NAMES} more" if len(known) > MOST_NAMES else ""
    return f"there is: {', '.join(known[:MOST_NAMES]) or 'none'}{more}"
