"""Read runs from the table `runs`: pages of the list, one run with its pace, its events.

tables --page | find--> rows of the relation `runs` --row_of | state_of--> what commands, HTTP and pages show
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from pydantic import Field

from archive.delta.tables import Tables
from archive.views.publications import connect_runs
from archive.views.run_kinds import kind_of
from archive.views.views import Views
from batch.runs.heartbeat import HEARTBEAT_S
from batch.runs.scope import in_words
from model_store.errors import BadRequest, ModelNotFound
from model_store.frozen import Frozen

ShownState = Literal["running", "interrupted", "sealed", "failed", "cancelled"]
COUNTS = ("requested", "ok", "empty", "failed", "reused")
INFERRED = ("ok", "empty", "failed")
PACE_OVER = timedelta(minutes=5)
"""Time over which the pace of a running run is measured."""
_EVENTS_OF_PACE = 2 * int(PACE_OVER.total_seconds() / HEARTBEAT_S)
_RUNS = """
    with now as (
        select * replace (
            if(state_now = 'running' and list_contains($ended, run_id), 'interrupted', state_now) as state_now)
        from runs)
    select * from now
    where ($run_id is null or run_id = $run_id) and ($state is null or state_now = $state)
        and ($kind is null or coalesce(kind, 'detect') = $kind)
        and ($since is null or state_now = 'running' or event_at > $since)
        and ($before is null or row(started_at, run_id) < (
            select row(started_at, run_id) from runs where run_id = $before))
    order by started_at desc, run_id desc limit $most
"""
_EVENTS = """
    select event, event_at, state, counts, message, stages from runs_table where run_id = $run_id
    order by event desc limit $most
"""


class RunRow(Frozen):
    """A run in a list. Counts are None while it is being planned; `published` are the views that show its results."""

    run_id: str
    kind: str
    state: str
    model: str
    scope: str
    requested: int | None
    ok: int | None
    empty: int | None
    failed: int | None
    reused: int | None
    started_at: str
    took_s: float
    published: tuple[str, ...]
    images_per_s: float | None
    started_by: str | None


class RunState(Frozen):
    """State of a run. `metrics` are set while it is running and once it is sealed."""

    run_id: str
    state: str
    kind: str | None
    inference_key: str | None
    model: str
    spec: dict[str, Any]
    metrics: dict[str, Any] | None
    message: str | None
    started_at: str
    last_event_at: str
    scope: str = Field(description="the scope in words")
    started_by: str | None = Field(description="name of the token that started it over HTTP")
    published: tuple[str, ...] = Field(description="views that show its results")
    counts: dict[str, int] | None = Field(description="counts so far; null while it is planned")
    balanced: bool | None = Field(description="requested = ok + empty + failed + reused")
    progress: float | None = Field(description="share of the requested units that are done, 0..1")
    images_per_s: float | None = Field(description="over the last five minutes, or the whole run")
    eta_s: int | None = Field(description="seconds to the end at this rate; null if unknown")


@dataclass(frozen=True, slots=True)
class Pace:
    """Units per second of a running run, and seconds to its end; None if unknown."""

    per_s: float | None = None
    eta_s: int | None = None


def page(
    tables: Tables,
    most: int,
    before: str | None = None,
    state: str | None = None,
    kind: str | None = None,
    ended: Collection[str] = (),
) -> list[dict[str, Any]]:
    """Return runs, newest first; only those `before` a run, if one is given. Raises BadRequest if it is unknown.

    `ended`: runs that are interrupted if their records are running (`ended_here` of batch/jobs/control.py).
    """
    if before is not None and find(tables, before) is None:
        raise BadRequest(f"unknown run '{before}': send the `next` of a page as `before`")
    return _runs(tables, most=most, ended=ended, before=before, state=state, kind=kind)


def recent(tables: Tables, since: datetime, most: int, ended: Collection[str] = ()) -> list[dict[str, Any]]:
    """Return the runs that are running or have an event after `since`, newest first. `ended` as in `page`."""
    return _runs(tables, most=most, ended=ended, since=since)


def find(tables: Tables, run_id: str, ended: Collection[str] = ()) -> dict[str, Any] | None:
    """Return a run; None if it is unknown or has not started. `ended` as in `page`."""
    return next(iter(_runs(tables, ended=ended, run_id=run_id)), None)


def require_run(tables: Tables, run_id: str, ended: Collection[str] = ()) -> dict[str, Any]:
    """Return a run. `ended` as in `page`. Raises ModelNotFound."""
    run = find(tables, run_id, ended)
    if run is None:
        raise ModelNotFound(f"unknown run '{run_id}', or it has not started: see resight runs list")
    return run


def events_of(tables: Tables, run_id: str, most: int) -> list[dict[str, Any]]:
    """Return the events of a run, newest first."""
    return _rows(tables, _EVENTS, run_id=run_id, most=most)


def rows_of(tables: Tables, runs: Sequence[Mapping[str, Any]]) -> list[RunRow]:
    shown = views_by_key(tables) if runs else {}
    return [_row_of(run, shown, _pace_of(tables, run)) for run in runs]


def state_of(tables: Tables, run: Mapping[str, Any], now: datetime | None = None) -> RunState:
    """Return the state of a run, with its pace at `now`."""
    pace, counts = _pace_of(tables, run, now), counts_of(run)
    row = _row_of(run, views_by_key(tables), pace)
    metrics = json.loads(run["metrics"]) if run["metrics"] else None
    done = sum(counts[name] for name in COUNTS[1:]) if counts else 0
    requested = counts["requested"] if counts else 0
    same = row.model_dump(include=RunState.model_fields.keys() & RunRow.model_fields.keys())
    return RunState(
        **same,
        inference_key=run["inference_key"],
        spec=spec_of(run),
        metrics=metrics,
        message=run["message"],
        last_event_at=moment(run["event_at"]),
        counts=counts,
        balanced=done == requested if counts else None,
        progress=round(done / requested, 4) if requested else None,
        eta_s=pace.eta_s,
    )


def views_by_key(tables: Tables) -> dict[str, list[str]]:
    """Map each inference key to the views that currently show it."""
    views = Views(tables.url)
    shown: dict[str, list[str]] = {}
    for name in views.names():
        if view := views.current(name):
            shown.setdefault(view.inference_key, []).append(name)
    return shown


def spec_of(run: Mapping[str, Any]) -> dict[str, Any]:
    return json.loads(run["spec"] or "{}")


def counts_of(run: Mapping[str, Any]) -> dict[str, int] | None:
    """Return the counts of a run or an event; None before the first, also if the run was interrupted then."""
    counts = run["counts"] or {}
    if run.get("state_now", run["state"]) in ("running", "interrupted") and not counts.get("requested"):
        return None
    return {name: int(counts.get(name) or 0) for name in (*COUNTS, "detections", "bytes")}


def pace(events: Sequence[Mapping[str, Any]], now: datetime) -> Pace:
    """Return the pace of a run from its events, newest first, over those of its last five minutes.

    The counts of earlier attempts do not count. If the last two beats are missing, the time until `now` counts.
    """
    last, first = _window(events)
    if last is None or first is None:
        return Pace()
    silent_s = (now - last["event_at"]).total_seconds()
    span_s = (last["event_at"] - first["event_at"]).total_seconds()
    waited_s = silent_s if silent_s > 2 * HEARTBEAT_S else 0.0
    made = _inferred(last) - _inferred(first)
    if made <= 0 or span_s <= 0:
        return Pace()
    per_s = made / (span_s + waited_s)
    counts = last["counts"]
    left = counts["requested"] - counts["reused"] - _inferred(last)
    return Pace(round(per_s, 2), max(0, round(left / per_s - (silent_s - waited_s))))


def moment(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%SZ}"


def _window(events: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any] | None, Mapping[str, Any] | None]:
    """Return the last event and the first of the same attempt within PACE_OVER before it."""
    last = first = None
    for event in events:
        if event["state"] != "running" or not (event["counts"] or {}).get("requested"):
            break
        if last is None:
            last = event
        elif _inferred(event) > _inferred(first) or event["event_at"] < last["event_at"] - PACE_OVER:
            break
        first = event
    return last, first


def _inferred(event: Mapping[str, Any] | None) -> int:
    return sum(event["counts"][name] or 0 for name in INFERRED) if event else 0


def _row_of(run: Mapping[str, Any], shown: Mapping[str, list[str]], pace: Pace) -> RunRow:
    spec, counts = spec_of(run), counts_of(run) or {}
    scope = spec.get("scope", {})
    has_rows = run["state_now"] == "sealed" or any(counts.get(name) for name in COUNTS[1:])
    shows = has_rows and kind_of(dict(run)) == "detect" and not scope.get("sample")
    metrics = json.loads(run["metrics"] or "{}")
    return RunRow(
        run_id=run["run_id"],
        kind=kind_of(dict(run)),
        state=run["state_now"],
        model=f"{run['model_name']}@{run['model_version']}",
        scope=in_words(scope),
        **{name: counts.get(name) for name in COUNTS},
        started_at=moment(run["started_at"]),
        took_s=round((run["event_at"] - run["started_at"]).total_seconds(), 1),
        published=tuple(shown.get(run["inference_key"], ())) if shows else (),
        images_per_s=pace.per_s or metrics.get("images_per_s"),
        started_by=spec.get("started_by"),
    )


def _pace_of(tables: Tables, run: Mapping[str, Any], now: datetime | None = None) -> Pace:
    if run["state_now"] != "running":
        return Pace()
    return pace(events_of(tables, run["run_id"], _EVENTS_OF_PACE), now or datetime.now(UTC))


def _runs(
    tables: Tables, most: int = 1, ended: Collection[str] = (), **conditions: str | datetime | None
) -> list[dict[str, Any]]:
    names = ("run_id", "before", "state", "kind", "since")
    return _rows(tables, _RUNS, most=most, ended=list(ended), **{name: conditions.get(name) for name in names})


def _rows(tables: Tables, sql: str, **parameters: Any) -> list[dict[str, Any]]:
    with connect_runs(tables) as relations:
        return relations.sql(sql, params=parameters).to_arrow_table().to_pylist()
