"""Submit the job of some runs and follow it to its end: a progress bar, its reports, its exit code.

start --to_end--> reports by run --facts_of--> facts for print_facts
Ctrl-C ends the following within a second and never the run; `resight runs attach` follows it again.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cli.output import Format, errors, note
from model_store.errors import ClusterError, StorageError
from model_store.lazy_imports import lazy_imports

with lazy_imports():
    from archive.tables import Tables
    from batch.failures import failures
    from batch.submit import JobOutcome, job_of, tail

INTERRUPTED = 130
"""128 + SIGINT, as a shell reports it."""
NOTHING = "interrupted: nothing was started"
ASK_S = 1.0
"""How long Ctrl-C during a submission waits for the cluster to say whether it has the job."""
NAMES = ("run_id", "accounting", "seconds", "images_per_s", "steady_images_per_s")
NAMES += ("detections_per_s", "bottleneck", "view", "classifier_key")
NAMES += ("snips", "published", "extrapolated", "left_undone")
NAMES += ("filter", "layer_id", "images", "checked", "flagged", "grouped", "changed")
NAMES += ("skipped_human", "skipped_invalid", "added", "withdrawn")
"""Of a report, in this order; each kind of run has some of them."""


@dataclass(frozen=True, slots=True)
class Followed:
    """How a job ended, as far as it was awaited (`tail`); `reports` of its runs by id, and its `run_failed` event,
    empty where there was none.
    """

    outcome: JobOutcome
    reports: Mapping[str, dict[str, Any]]
    failed: Mapping[str, Any]


@contextlib.contextmanager
def interruptible(words: Callable[[], str] = lambda: NOTHING) -> Iterator[None]:
    """At Ctrl-C print `words` and end with exit code 130."""
    try:
        yield
    except KeyboardInterrupt:
        note(words())
        raise typer.Exit(INTERRUPTED) from None


def to_end(
    start: Callable[[], str], run_ids: Sequence[str], quiet: bool = False
) -> Mapping[str, dict[str, Any]]:
    """Submit the job of these runs with `start` and follow it; return the reports that came, by run.

    A job that Ray could not begin is submitted once more. Exits with the code of the job when it fails. Raises what
    `start` and `follow` raise.
    """
    job = submitted(start, run_ids)
    done = follow(job, run_ids, quiet)
    if done.outcome.never_began:
        job = submitted(start, run_ids)
        done = follow(job, run_ids, quiet)
    return reports_of(job, run_ids, done)


def submitted(start: Callable[[], str], run_ids: Sequence[str]) -> str:
    """Return the id of the job that `start` submits. Exits with 130 at Ctrl-C."""
    with interruptible(lambda: _interrupted_submission(run_ids)):
        return start()


def reports_of(job: str, run_ids: Sequence[str], done: Followed) -> Mapping[str, dict[str, Any]]:
    """Return the reports of a job that succeeded, and note each that is missing. Exits with its code when it failed."""
    if done.outcome.status != "SUCCEEDED":
        words = done.failed.get("error") or done.outcome.message
        note(f"the job ended {done.outcome.status}: {words}")
        raise typer.Exit(done.outcome.exit_code or 5)
    for run_id in run_ids:
        if run_id not in done.reports:
            note(f"run {run_id} has succeeded, but its report did not come: ray job logs {job}")
    return done.reports


def follow(submission_id: str, run_ids: Sequence[str], quiet: bool = False) -> Followed:
    """Show a job until the reports of these runs have come, or it ends without. Exits with 130 at Ctrl-C."""
    reports: dict[str, dict[str, Any]] = {}
    failed: dict[str, Any] = {}
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[words]}"),
        TimeRemainingColumn(),
    )
    with (
        interruptible(lambda: goes_on(run_ids)),
        Progress(*columns, console=errors, disable=quiet) as bar,
    ):
        task = bar.add_task("starting", total=None, words="")

        def on_event(event: dict[str, Any]) -> None:
            match event.get("event"):
                case "planned" if "parts" in event:  # of a filter run
                    rows = f"{event['rows']} rows"
                    bar.update(task, description=rows, total=event["parts"], completed=0)
                case "filter_progress":
                    bar.update(task, completed=event["parts"])
                case "planned" | "progress":
                    done = sum(event.get(k, 0) for k in ("ok", "empty", "failed", "reused"))
                    total, words = event["requested"], _words(event)
                    bar.update(task, description="run", total=total, completed=done, words=words)
                case "snips_progress":
                    done = sum(event[k] for k in ("done", "failed", "reused"))
                    total, words = event["wanted"], f"{event['files']} files"
                    bar.update(task, description="snips", total=total, completed=done, words=words)
                case "report":
                    reports[event["run_id"]] = event
                case "run_failed":
                    failed.update(event)

        wanted = set(run_ids)
        outcome = tail(submission_id, _events_to(on_event), lambda: wanted <= reports.keys())
    return Followed(outcome, reports, failed)


def goes_on(run_ids: Sequence[str]) -> str:
    """Return how to watch and how to stop runs that nobody follows any more."""
    many, run = len(run_ids) > 1, run_ids[0]
    return (
        f"{'runs' if many else 'run'} {', '.join(run_ids)} {'go' if many else 'goes'} on; watch "
        f"{'them' if many else 'it'} with: resight runs attach {run}; stop {'them' if many else 'it'} with: "
        f"resight runs cancel {run}"
    )


def facts_of(report: Mapping[str, Any], fmt: Format, tables: Tables) -> dict[str, Any]:
    """Return what is shown of a report, as JSON its counts and stages too; note the first files that failed."""
    if report["run_id"] and report.get("counts", {}).get("failed"):
        with contextlib.suppress(StorageError):  # tables that only the cluster's nodes see
            for line in failures(tables, report["run_id"]):
                note(line)
    names = (*NAMES, "counts", "stages") if fmt is Format.json else NAMES
    return {name: report[name] for name in names if name in report}


def _interrupted_submission(run_ids: Sequence[str]) -> str:
    """Return whether the cluster has the job by now, as far as it answers within ASK_S."""
    found: list[object] = []

    def ask() -> None:
        with contextlib.suppress(ClusterError):
            found.append(job_of(run_ids[0]))

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(ASK_S)
    if not found:
        return f"interrupted while the job was submitted; if it was: {goes_on(run_ids)}"
    return goes_on(run_ids) if found[0] else NOTHING


def _events_to(on_event: Callable[[dict[str, Any]], None]) -> Callable[[str], None]:
    """For `tail`: each line of a job that is an event is handed on."""

    def on_line(line: str) -> None:
        if not line.startswith("{"):
            return
        try:
            event = json.loads(line)
        except ValueError:
            note(line)
            return
        on_event(event)

    return on_line


def _words(event: dict[str, Any]) -> str:
    counts = " ".join(f"{k} {event[k]}" for k in ("ok", "empty", "failed", "reused") if k in event)
    for name, unit in (("images_per_s", "img/s"), ("detections_per_s", "det/s")):
        if event.get(name):
            return f"{counts} · {event[name]:.0f} {unit}"
    return counts
