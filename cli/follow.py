"""Follow a run from the command line, as a progress bar, to its end.

start, watch --to_end--> the job is submitted and watched, once more where it never began; its reports, or its exit code
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from batch.submit import JobOutcome, tail
from cli.output import errors, note


@dataclass(frozen=True, slots=True)
class Followed:
    """How a job ended, as far as it was awaited (`tail`); `reports` of its runs by id, and its `run_failed` event,
    empty where there was none.
    """

    outcome: JobOutcome
    reports: Mapping[str, dict[str, Any]]
    failed: Mapping[str, Any]


def to_end(
    start: Callable[[], str], run_ids: Sequence[str], watch: Callable[[str], Followed]
) -> Mapping[str, dict[str, Any]]:
    """Submit the job of these runs with `start`, and `watch` what has this id; the reports that came, by run.

    A job that Ray could not begin is submitted once more. Exits with the code of the job when it fails. Raises what
    `start` and `watch` raise.
    """
    job = start()
    done = watch(job)
    if done.outcome.never_began:
        job = start()
        done = watch(job)
    if done.outcome.status != "SUCCEEDED":
        words = done.failed.get("error") or done.outcome.message
        note(f"the job ended {done.outcome.status}: {words}")
        raise typer.Exit(done.outcome.exit_code or 5)
    for run_id in run_ids:
        if run_id not in done.reports:
            note(f"run {run_id} has succeeded, but its report did not come: ray job logs {job}")
    return done.reports


def follow(submission_id: str, quiet: bool) -> Followed:
    """Show a run until its report comes, or it ends without one."""
    reports: dict[str, dict[str, Any]] = {}
    failed: dict[str, Any] = {}
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[words]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=errors, disable=quiet) as bar:
        task = bar.add_task("starting", total=None, words="")

        def on_event(event: dict[str, Any]) -> None:
            kind = event.get("event")
            if kind in ("planned", "progress"):
                done = sum(event.get(k, 0) for k in ("ok", "empty", "failed", "reused"))
                bar.update(
                    task,
                    description="run",
                    total=event["requested"],
                    completed=done,
                    words=_words(event),
                )
            elif kind == "snips_progress":
                done = sum(event[k] for k in ("done", "failed", "reused"))
                words = f"{event['files']} files"
                bar.update(
                    task, description="snips", total=event["wanted"], completed=done, words=words
                )
            elif kind == "report":
                reports[event["run_id"]] = event
            elif kind == "run_failed":
                failed.update(event)

        outcome = asyncio.run(tail(submission_id, events_to(on_event), lambda: bool(reports)))
    return Followed(outcome, reports, failed)


def events_to(on_event: Callable[[dict[str, Any]], None]) -> Callable[[str], None]:
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
