"""The commands `runs list, show, log, attach, cancel`; publication.py adds the others."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Annotated, Any

import typer

from cli import publication
from cli.follow import facts_of, follow, reports_of
from cli.output import Format, FormatOption, in_words, note, print_facts, print_rows
from model_store.errors import BadRequest, ClusterError, Conflict
from model_store.lazy_imports import lazy_imports

with lazy_imports():
    from archive.delta.tables import Tables
    from batch.jobs.control import Jobs, all_jobs, close, ended_here, is_interrupted, jobs_of, submitted_runs
    from batch.runs import listing
    from batch.runs.listing import RunRow, moment
    from batch.runs.record import report_of
    from serve.cluster.head import has_cluster
    from serve.settings import Settings

app = typer.Typer(help="Runs over the archive, and the publication of their results.", no_args_is_help=True)
RunId = Annotated[str, typer.Argument(metavar="RUN", help="id of the run, see 'resight runs list'")]
COLUMNS = ("run_id", "kind", "state", "model", "scope", "requested", "ok", "empty", "failed", "reused")
COLUMNS += ("started_at", "took_s", "published")
SHOWN_EVENTS = 5
SUBMITTED = "submitted"
"""State of a run with a job that has recorded nothing yet."""
ENDED = ("sealed", "failed", "cancelled")


@app.command("list")
def list_runs(
    most: Annotated[int, typer.Option(min=1, help="maximum number of runs, newest first")] = 20,
    fmt: FormatOption = Format.table,
) -> None:
    """List runs, newest first, with state, counts and the views that show their results.

    A run is `submitted` until its job has started and recorded it.

    Example: resight runs list --format json
    """
    settings = Settings()
    tables = Tables(settings.mounted_tables_url)
    submitted = submitted_runs(settings, tables)  # first, as one may be recorded now
    rows = listing.rows_of(tables, listing.page(tables, most, ended=ended_here(settings, tables)))
    new = sorted(submitted.keys() - {row.run_id for row in rows}, reverse=True)
    empty = dict.fromkeys(COLUMNS)
    shown = [empty | {"run_id": run, "state": SUBMITTED} for run in new]
    print_rows([*shown, *map(_row, rows)][:most], fmt, COLUMNS)


@app.command()
def show(run_id: RunId, fmt: FormatOption = Format.table) -> None:
    """Show one run: its options, its counts, the time of each stage, and its last events.

    Example: resight runs show 20260514T031500-9f2c1a
    """
    settings = Settings()
    tables = Tables(settings.mounted_tables_url)
    if listing.find(tables, run_id) is None and (job := submitted_runs(settings, tables).get(run_id)):
        print_facts({"run_id": run_id, "state": SUBMITTED, "job": job}, fmt)
        return
    run = _run(tables, run_id, ended_here(settings, tables))
    last = [_event(event) for event in listing.events_of(tables, run_id, SHOWN_EVENTS)]
    facts = _facts(tables, run)
    if fmt is not Format.table:
        print_facts(facts | {"events": last}, fmt)
        return
    metrics, stages, spec = (facts.pop(name) or {} for name in ("metrics", "stages", "spec"))
    facts |= {f"spec {name}": value for name, value in spec.items() if name not in facts}
    facts |= {f"metric {name}": value for name, value in metrics.items() if name not in ("began_on", "crops_of")}
    print_facts(facts | {f"stage {name}": value for name, value in stages.items()}, fmt)
    print()
    print_rows(last, fmt)


@app.command()
def log(
    run_id: RunId,
    most: Annotated[int, typer.Option(min=1, help="maximum number of events, newest first")] = 1000,
    fmt: FormatOption = Format.table,
) -> None:
    """List the events of a run, newest first. For the output of its job: resight logs --run RUN.

    Example: resight runs log 20260514T031500-9f2c1a
    """
    tables = Tables(Settings().mounted_tables_url)
    _run(tables, run_id)
    print_rows([_event(event) for event in listing.events_of(tables, run_id, most)], fmt)


@app.command()
def attach(
    run_id: Annotated[str, typer.Argument(metavar="[RUN]", help="id of the run; default: the newest run")] = "",
    fmt: FormatOption = Format.table,
) -> None:
    """Follow a run to its end like the command that started it; if it has ended, print its report.

    The exit code is that of the run's job; 5 if the run ended without being sealed.
    Example: resight runs attach 20260514T031500-9f2c1a
    """
    settings = Settings()
    tables = Tables(settings.mounted_tables_url)
    ended = ended_here(settings, tables)
    newest = [listing.find(tables, run_id, ended)] if run_id else listing.page(tables, 1, ended=ended)
    run = next(iter(newest), None)
    has_ended = bool(run_id and run and run["state_now"] in ENDED)
    job = None if has_ended else _job(settings, run_id)
    if job is not None:
        jobs, run_id, name = job
        done = follow(jobs, name, [run_id], fmt is not Format.table)
        report = reports_of([run_id], done).get(run_id, {"run_id": run_id})
    elif run is None:
        words = f"unknown run '{run_id}'" if run_id else "no run has started"
        raise BadRequest(f"{words}: see resight runs list")
    elif run["state_now"] == "running":
        raise Conflict(
            f"run {run['run_id']} is running, but not as a job of this machine or its cluster; see its state "
            f"with: resight runs show {run['run_id']}"
        )
    else:
        report = report_of(run)
        if run["state_now"] != "sealed":
            counts = listing.counts_of(run) or {}
            report["accounting"] = in_words({name: counts[name] for name in listing.COUNTS if name in counts})
    print_facts(facts_of(report, fmt, tables), fmt)
    if job is None and run and run["state_now"] != "sealed":
        why = f": {run['message']}" if run["message"] else ""
        note(f"run {run['run_id']} is {run['state_now']}{why}; to resume it, run it again")
        raise typer.Exit(5)


def _job(settings: Settings, run_id: str) -> tuple[Jobs, str, str] | None:
    """Return a run and its job, with the jobs that it is one of; None if there is none. Raises ClusterError."""
    hosts = all_jobs(settings)
    hosts.sort(key=lambda jobs: not run_id or run_id not in jobs.running())
    for jobs in hosts:
        if found := jobs.job_of(run_id):
            return jobs, *found
    return None


@app.command()
def cancel(run_id: RunId, fmt: FormatOption = Format.table) -> None:
    """Stop a run and keep its committed results. A run that was killed is recorded as cancelled.

    To resume it, run it again. Example: resight runs cancel 20260514T031500-9f2c1a
    """
    settings = Settings()
    tables = Tables(settings.mounted_tables_url)
    job = jobs_of(settings, here=True).stop(run_id)
    if job is None and has_cluster(settings) and _answers(settings, tables, run_id):
        job = jobs_of(settings).stop(run_id)
    state = close(tables, run_id, job, ended_here(settings, tables))
    print_facts({"run_id": run_id, "state": state, "job": job}, fmt)


def _answers(settings: Settings, tables: Tables, run_id: str) -> bool:
    """Return whether the cluster answers. If not, only the record of an interrupted run can be closed.

    Raises ClusterError if the cluster does not answer and the run is not interrupted.
    """
    try:
        jobs_of(settings).running()
    except ClusterError as error:
        if not is_interrupted(tables, run_id):
            raise
        note(f"{error}; the run has reported nothing for five minutes, so only its record is closed")
        return False
    return True


def _run(tables: Tables, run_id: str, ended: Collection[str] = ()) -> dict[str, Any]:
    run = listing.find(tables, run_id, ended)
    if run is None:
        raise BadRequest(f"unknown run '{run_id}': see resight runs list")
    return run


def _row(row: RunRow) -> dict[str, Any]:
    values = row.model_dump() | {"published": ", ".join(row.published)}
    return {column: values[column] for column in COLUMNS}


def _facts(tables: Tables, run: dict[str, Any]) -> dict[str, Any]:
    facts = _row(listing.rows_of(tables, [run])[0]) | {"inference_key": run["inference_key"]}
    facts |= {name: (run["counts"] or {}).get(name) for name in ("detections", "bytes")}
    facts |= {"last_event_at": moment(run["event_at"]), "message": run["message"]}
    facts |= {"resight_version": run["resight_version"], "spec": listing.spec_of(run)}
    parsed = {name: json.loads(run[name]) if run[name] else None for name in ("metrics", "stages")}
    return facts | parsed


def _event(event: dict[str, Any]) -> dict[str, Any]:
    counts = event["counts"] or {}
    return {
        "event": event["event"],
        "at": moment(event["event_at"]),
        "state": event["state"],
        **{name: counts.get(name) for name in ("ok", "empty", "failed", "reused")},
        "message": event["message"] or "",
    }


app.add_typer(publication.app)
