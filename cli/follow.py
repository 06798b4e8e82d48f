"""Submit the job of some runs and follow it to its end: progress bar, reports, exit code.

start --to_end--> reports by run --facts_of--> facts for print_facts
At Ctrl-C, runs on a cluster continue, and runs on this machine stop (`Jobs.interrupted`).
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from cli.output import Format, errors, note
from model_store.errors import ClusterError, StorageError
from model_store.lazy_imports import lazy_imports
from model_store.process_exit import lasting_stops

with lazy_imports():
    from archive.delta.arrow_alone import import_arrow_alone
    from archive.delta.tables import Tables
    from batch.jobs.control import (
        JobOutcome,
        Jobs,
        continuing_words,
        jobs_of,
        require_startable,
        running_elsewhere,
        submit,
    )
    from batch.pipeline.stage_start import start_ahead
    from batch.planning.id_list import keep_ids
    from batch.runs.accounting import failed_before, failures, partly_decoded
    from batch.runs.run import report_of_nothing
    from batch.runs.spec import PassSpec
    from model_store.store import ModelStore
    from serve.cluster.head import has_cluster
    from serve.settings import Settings

INTERRUPTED = 130
"""Exit code at Ctrl-C: 128 + SIGINT, as in a shell."""
NOTHING = "interrupted: nothing was started"
ASK_S = 1.0
"""Maximum wait at Ctrl-C during a submission for the cluster to confirm the job."""
NAMES = ("run_id", "accounting", "partly_decoded", "seconds", "images_per_s", "steady_images_per_s")
NAMES += ("detections_per_s", "bottleneck", "view", "classifier_key", "embedder_key")
NAMES += ("snips", "published", "extrapolated", "next", "left_undone")
NAMES += ("filter", "layer_id", "images", "checked", "flagged", "grouped", "changed")
NAMES += ("skipped_human", "skipped_invalid", "added", "withdrawn")
"""Fields of a report that are printed, in this order; each kind of run has some of them."""


@dataclass(frozen=True, slots=True)
class Followed:
    """The outcome of a job, the reports of its runs by id, and its `run_failed` event, empty if there was none."""

    outcome: JobOutcome
    reports: Mapping[str, dict[str, Any]]
    failed: Mapping[str, Any]


@contextlib.contextmanager
def interruptible(words: Callable[[], str] = lambda: NOTHING) -> Iterator[None]:
    """Print `words` and exit with code 130 at Ctrl-C."""
    try:
        yield
    except KeyboardInterrupt:
        note(words())
        raise typer.Exit(INTERRUPTED) from None


def prepare_here(spec: PassSpec, settings: Settings, here: bool) -> None:
    """Start a process for a followed run on this machine, which loads the model while the command imports and plans."""
    if here or not has_cluster(settings):
        start_ahead(*([settings.models_url, spec.model] if spec.model else []))
        import_arrow_alone()


def run_to_end(
    spec: PassSpec,
    settings: Settings,
    tables: Tables,
    store: ModelStore,
    wait: bool,
    fmt: Format,
    here: bool = False,
    alone: bool = False,
) -> dict[str, Any]:
    """Plan a run, submit it unless the plan is empty, and `wait` for its end; return facts to print.

    It runs on the cluster; on this machine if no cluster is up, or with `here`. With `alone`, a run is refused while
    another one of its model is running.
    """
    with interruptible(), lasting_stops():
        report = report_of_nothing(spec, settings, tables, store)
        if report is not None:
            facts = facts_of(report, fmt, tables)
            return nothing_to_do(facts) if fmt is Format.table else facts
        keep_ids(settings.tables_url, spec.scope.ids)
        jobs = jobs_of(settings, here)
        elsewhere = running_elsewhere(jobs, settings)
        require_startable(spec, jobs, elsewhere, tables, store, alone)
        note(jobs.where)

    def start() -> str:
        return submit(spec, jobs, settings, followed=wait)

    if not wait:
        return {"run_id": spec.run_id, "job": submitted(jobs, start, spec.run_ids)}
    reports = to_end(jobs, start, spec.run_ids, fmt is not Format.table)
    with interruptible(lambda: _ended(spec.run_ids)):
        first, *then = (reports.get(run_id, {"run_id": run_id}) for run_id in spec.run_ids)
        return facts_of({**first, **({"then": then[0]} if then else {})}, fmt, tables)


def nothing_to_do(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts of a run that was not necessary, for people: one line, and what followed from it."""
    rest = {name: value for name, value in facts.items() if value and name != "accounting"}
    return {"nothing to do": facts["accounting"], **rest}


def to_end(
    jobs: Jobs, start: Callable[[], str], run_ids: Sequence[str], quiet: bool = False
) -> Mapping[str, dict[str, Any]]:
    """Submit the job of these runs with `start` and follow it; return the received reports by run.

    A job that Ray could not begin is submitted once more. If the job fails, exits with its code. Raises the errors of
    `start` and `follow`.
    """

    def once() -> Followed:
        job = submitted(jobs, start, run_ids)
        return follow(jobs, job, run_ids, quiet, lambda: jobs.interrupted(run_ids))

    done = once()
    return reports_of(run_ids, once() if done.outcome.never_began else done)


def submitted(jobs: Jobs, start: Callable[[], str], run_ids: Sequence[str]) -> str:
    """Submit a job with `start` and return its id. At Ctrl-C, exits with 130 and notes whether the run continues."""
    with interruptible(lambda: _interrupted_submission(jobs, run_ids)):
        return start()


def reports_of(run_ids: Sequence[str], done: Followed) -> Mapping[str, dict[str, Any]]:
    """Return the reports of a successful job and note missing ones. If the job failed, exits with its code."""
    if (signal := done.outcome.killed_by) is not None:
        note(f"the job of run {run_ids[0]} was killed by {signal}; its log: resight logs --run {run_ids[0]}")
        note("committed results are kept: to continue, run the same command again")
        raise typer.Exit(5)
    if done.outcome.status != "SUCCEEDED":
        for run_id, report in done.reports.items():  # of those before the one that failed
            note(f"run {run_id}: {report.get('accounting', 'ended')}")
        words = done.failed.get("error") or done.outcome.message
        note(f"the job ended with status {done.outcome.status}: {words}")
        raise typer.Exit(done.outcome.exit_code or 5)
    for run_id in run_ids:
        if run_id not in done.reports:
            note(f"run {run_id} succeeded, but its report is missing; see: resight logs --run {run_id}")
    return done.reports


def follow(
    jobs: Jobs, job: str, run_ids: Sequence[str], quiet: bool = False, interrupted: Callable[[], str] | None = None
) -> Followed:
    """Show the progress of a job until all reports of these runs are there or it ends.

    At Ctrl-C, exits with 130 and prints what `interrupted` returns, by default that the runs continue; or that all
    have ended.
    """
    reports: dict[str, dict[str, Any]] = {}
    failed: dict[str, Any] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[words]}"))

    def words() -> str:
        if set(run_ids) <= reports.keys():
            return _ended(run_ids)
        return interrupted() if interrupted else continuing_words(run_ids)

    with interruptible(words), Progress(*columns, console=errors, disable=quiet) as bar:
        task = bar.add_task("starting", total=None, words="")

        def on_event(event: dict[str, Any]) -> None:
            match event.get("event"):
                case "planned" if "parts" in event:  # a filter run
                    bar.update(task, description=f"{event['rows']} rows", total=event["parts"], completed=0)
                case "filter_progress":
                    bar.update(task, completed=event["parts"])
                case "planned" | "progress":
                    done = sum(event.get(k, 0) for k in ("ok", "empty", "failed", "reused"))
                    total, words = event["requested"], _words(event)
                    bar.update(task, description="run", total=total, completed=done, words=words)
                case "snips_progress":
                    done = sum(event[k] for k in ("done", "failed", "reused"))
                    total, words = event["wanted"], f"{event['files']} files{_left(event)}"
                    bar.update(task, description="snips", total=total, completed=done, words=words)
                case "report":
                    reports[event["run_id"]] = event
                case "run_failed":
                    failed.update(event)

        def on_line(line: str) -> None:
            if line.startswith("{"):
                try:
                    event = json.loads(line)
                except ValueError:
                    note(line)
                else:
                    on_event(event)

        outcome = jobs.tail(job, on_line, lambda: set(run_ids) <= reports.keys())
    return Followed(outcome, reports, failed)


def facts_of(report: Mapping[str, Any], fmt: Format, tables: Tables) -> dict[str, Any]:
    """Return the printed fields of a report, for people those with a value, and note the first failed files.

    For JSON also counts, stages, and the first failed files as `failed_files`.
    """
    more: dict[str, Any] = {}
    if report["run_id"] and report.get("counts", {}).get("failed"):
        with contextlib.suppress(StorageError):  # only the cluster's nodes may reach the tables
            failed = failures(tables, report["run_id"])
            more = {"failed_files": failed.files} if fmt is Format.json else {}
            for line in failed.lines():
                note(line)
    if report["run_id"] and report.get("partly_decoded"):
        note(partly_decoded(report["run_id"], report["partly_decoded"]))
    if report["run_id"]:
        with contextlib.suppress(StorageError):
            for line in failed_before(tables, report["run_id"], report.get("failed_before", 0)):
                note(line)
    names = (*NAMES, "counts", "stages") if fmt is Format.json else NAMES
    if then := report.get("then"):
        more["then"] = facts_of(then, fmt, tables)
    empty = (None, "") if fmt is Format.table else ()
    return {name: report[name] for name in names if name in report and report[name] not in empty} | more


def _interrupted_submission(jobs: Jobs, run_ids: Sequence[str]) -> str:
    """Return a text on whether the job was submitted, if the host answers within ASK_S."""
    answers: list[object] = []

    def query() -> None:
        with contextlib.suppress(ClusterError):
            answers.append(run_ids[0] in jobs.running())

    thread = threading.Thread(target=query, daemon=True)
    thread.start()
    thread.join(ASK_S)
    if not answers:
        return f"interrupted while submitting the job; if the cluster has it, {continuing_words(run_ids)}"
    return continuing_words(run_ids) if answers[0] else NOTHING


def _ended(run_ids: Sequence[str]) -> str:
    return "; ".join(f"run {run_id} has ended; its report: resight runs attach {run_id}" for run_id in run_ids)


def _words(event: dict[str, Any]) -> str:
    counts = " ".join(f"{k} {event[k]}" for k in ("ok", "empty", "failed", "reused") if k in event)
    for name, unit in (("images_per_s", "img/s"), ("detections_per_s", "det/s")):
        if event.get(name):
            counts += f" · {event[name]:.0f} {unit}"
    return counts + _left(event)


def _left(event: dict[str, Any]) -> str:
    """Return the time that the job expects to need. Rich's own estimate would count reused images as work."""
    return f" · {timedelta(seconds=event['eta_s'])} left" if event.get("eta_s") else ""
