"""runs list, show, log, attach, cancel; publish, rollback, prune and diff are registered from files of their own."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Annotated, Any

import typer

from archive.run_kinds import kind_of
from cli import publication, runs_diff
from cli.follow import facts_of, follow, reports_of
from cli.output import Format, FormatOption, note, print_facts, print_rows
from model_store.errors import BadRequest, ClusterError, Conflict
from model_store.lazy_imports import lazy_imports

with lazy_imports():
    from archive.publications import connect_runs
    from archive.tables import Tables
    from archive.views import Views
    from batch.cancel import close, is_interrupted
    from batch.run_log import report_of
    from batch.scope import in_words
    from serve.cluster import join, read_state
    from serve.settings import Settings

app = typer.Typer(
    help="What was run over the archive, and which of it is published.", no_args_is_help=True
)
RunId = Annotated[str, typer.Argument(metavar="RUN", help="its id, see 'resight runs list'")]
COLUMNS = (
    "run_id",
    "kind",
    "state",
    "model",
    "scope",
    "requested",
    "ok",
    "empty",
    "failed",
    "reused",
)
COLUMNS += ("started_at", "took_s", "published")
_RUNS = "select * from runs where $run_id is null or run_id = $run_id order by started_at desc, run_id desc"
_EVENTS = """
    select event, event_at, state, counts, message, stages from runs_table where run_id = $run_id
    order by event desc limit $most
"""
SHOWN_EVENTS = 5
ENDED = ("sealed", "failed", "cancelled")


@app.command("list")
def list_runs(
    most: Annotated[int, typer.Option(min=1, help="runs, the newest first")] = 20,
    fmt: FormatOption = Format.table,
) -> None:
    """Every run, the newest first: its state, what it did, and the views that show its results.

    Example: resight runs list --format json
    """
    tables = Tables(Settings().tables_url)
    shown = _shown(tables)
    runs = _rows(tables, f"{_RUNS} limit $most", run_id=None, most=most)
    print_rows([_row(run, shown) for run in runs], fmt, COLUMNS)


@app.command()
def show(run_id: RunId, fmt: FormatOption = Format.table) -> None:
    """One run: what was asked, what came of it, where the time went, and its last events.

    Example: resight runs show 20260514T031500-9f2c1a
    """
    tables = Tables(Settings().tables_url)
    run = _run(tables, run_id)
    events = _rows(tables, _EVENTS, run_id=run_id, most=SHOWN_EVENTS)
    last = [_event(event) for event in events]
    facts = _facts(run, _shown(tables))
    if fmt is not Format.table:
        print_facts(facts | {"events": last}, fmt)
        return
    metrics, stages, spec = (facts.pop(name) or {} for name in ("metrics", "stages", "spec"))
    asked = {name: value for name, value in spec.items() if name not in facts}
    facts |= {f"asked {name}": value for name, value in asked.items()}
    facts |= {f"metric {name}": value for name, value in metrics.items() if name != "began_on"}
    print_facts(facts | {f"stage {name}": value for name, value in stages.items()}, fmt)
    print()
    print_rows(last, fmt)


@app.command()
def log(
    run_id: RunId,
    most: Annotated[int, typer.Option(min=1, help="events, the newest first")] = 1000,
    fmt: FormatOption = Format.table,
) -> None:
    """Every event of a run, the newest first. What its job printed: resight logs --run RUN.

    Example: resight runs log 20260514T031500-9f2c1a
    """
    tables = Tables(Settings().tables_url)
    _run(tables, run_id)
    print_rows([_event(e) for e in _rows(tables, _EVENTS, run_id=run_id, most=most)], fmt)


@app.command()
def attach(
    run_id: Annotated[
        str, typer.Argument(metavar="[RUN]", help="its id; default: the newest")
    ] = "",
    fmt: FormatOption = Format.table,
) -> None:
    """Follow a run to its end, as the command that started it does; of one that has ended, print its report.

    Exit codes are those of the run's job; 5 for a run that ended without being sealed.
    Example: resight runs attach 20260514T031500-9f2c1a
    """
    settings = Settings()
    tables = Tables(settings.tables_url)
    run = next(iter(_rows(tables, f"{_RUNS} limit 1", run_id=run_id or None)), None)
    has_ended = bool(run_id and run and run["state_now"] in ENDED)
    job = None if has_ended else _job(settings, run_id)
    if job is not None:
        run_id, submission_id = job
        done = follow(submission_id, [run_id], fmt is not Format.table)
        report = reports_of(submission_id, [run_id], done).get(run_id, {"run_id": run_id})
    elif run is None:
        raise BadRequest(f"no run '{run_id}'; see: resight runs list")
    elif run["state_now"] == "running":
        raise Conflict(
            f"run {run['run_id']} is running, but not as a job of this cluster; what it does: resight runs "
            f"show {run['run_id']}"
        )
    else:
        report = report_of(run)
    print_facts(facts_of(report, fmt, tables), fmt)
    if job is None and run and run["state_now"] != "sealed":
        note(f"run {run['run_id']} is {run['state_now']}; to go on with it, run it again")
        raise typer.Exit(5)


def _job(settings: Settings, run_id: str) -> tuple[str, str] | None:
    """A run and its job, where there is a cluster. Raises ClusterError."""
    if read_state(settings) is None and not settings.address:
        return None
    join(settings)
    from batch.submit import job_of

    return job_of(run_id)


@app.command()
def cancel(run_id: RunId, fmt: FormatOption = Format.table) -> None:
    """Stop a run; what it has committed stays. Of one that was killed, the record says so then.

    To go on with it, run it again. Example: resight runs cancel 20260514T031500-9f2c1a
    """
    settings = Settings()
    job = None
    tables = Tables(settings.tables_url)
    if (read_state(settings) or settings.address) and _answers(settings, tables, run_id):
        from batch.submit import stop

        job = stop(run_id)
    state = close(tables, run_id, job)
    print_facts({"run_id": run_id, "state": state, "job": job}, fmt)


def _answers(settings: Settings, tables: Tables, run_id: str) -> bool:
    """False where no cluster answers and the run is interrupted: then the record alone is closed.

    Raises ClusterError where another run may be at work there.
    """
    from batch.submit import require_answer

    try:
        join(settings)
        require_answer()
    except ClusterError as error:
        if not is_interrupted(tables, run_id):
            raise
        note(f"{error}; the run gave no sign for five minutes, so the record alone is closed")
        return False
    return True


def _rows(tables: Tables, sql: str, **parameters: Any) -> list[dict[str, Any]]:
    with connect_runs(tables) as relations:
        return relations.sql(sql, params=parameters).to_arrow_table().to_pylist()


def _run(tables: Tables, run_id: str) -> dict[str, Any]:
    found = _rows(tables, _RUNS, run_id=run_id)
    if not found:
        raise BadRequest(f"no run '{run_id}'; see: resight runs list")
    return found[0]


def _shown(tables: Tables) -> dict[str, list[str]]:
    """Inference key to the views that show it now."""
    views = Views(tables.url)
    shown: dict[str, list[str]] = {}
    for name in views.names():
        view = views.current(name)
        if view:
            shown.setdefault(view.inference_key, []).append(name)
    return shown


def _row(run: dict[str, Any], shown: dict[str, list[str]]) -> dict[str, Any]:
    counts, detects = run["counts"] or {}, kind_of(run) == "detect"
    values = {
        "run_id": run["run_id"],
        "kind": kind_of(run),
        "state": run["state_now"],
        "model": f"{run['model_name']}@{run['model_version']}",
        "scope": in_words(json.loads(run["spec"] or "{}").get("scope", {})),
        **{name: counts.get(name) for name in ("requested", "ok", "empty", "failed", "reused")},
        "started_at": _moment(run["started_at"]),
        "took_s": round((run["event_at"] - run["started_at"]).total_seconds(), 1),
        "published": ", ".join(shown.get(run["inference_key"], [])) if detects else "",
    }
    return {column: values[column] for column in COLUMNS}


def _facts(run: dict[str, Any], shown: dict[str, list[str]]) -> dict[str, Any]:
    facts = _row(run, shown) | {"inference_key": run["inference_key"]}
    facts |= {name: (run["counts"] or {}).get(name) for name in ("detections", "bytes")}
    facts |= {"last_event_at": _moment(run["event_at"]), "message": run["message"]}
    facts |= {"resight_version": run["resight_version"], "spec": json.loads(run["spec"] or "{}")}
    told = {name: json.loads(run[name]) if run[name] else None for name in ("metrics", "stages")}
    return facts | told


def _event(event: dict[str, Any]) -> dict[str, Any]:
    counts = event["counts"] or {}
    return {
        "event": event["event"],
        "at": _moment(event["event_at"]),
        "state": event["state"],
        **{name: counts.get(name) for name in ("ok", "empty", "failed", "reused")},
        "message": event["message"] or "",
    }


def _moment(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%SZ}"


runs_diff.register(app)
publication.register(app)
