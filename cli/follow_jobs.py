"""Follow a job of several runs from the command line, to its end; its reports by run."""

from __future__ import annotations

import asyncio
from typing import Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from batch.submit import JobOutcome, tail
from cli.follow import events_to
from cli.output import errors, note


def follow_reports(submission_id: str) -> dict[str, dict[str, Any]]:
    """Run id to the facts of its report. Exits with the job's code when it fails; raises ClusterError."""
    reports: dict[str, dict[str, Any]] = {}
    failed: dict[str, Any] = {}
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), console=errors
    ) as bar:
        task = bar.add_task("starting", total=None)

        def on_event(event: dict[str, Any]) -> None:
            match event.get("event"):
                case "planned":
                    bar.update(
                        task, description=f"{event['rows']} rows", total=event["parts"], completed=0
                    )
                case "filter_progress":
                    bar.update(task, completed=event["parts"])
                case "report":
                    reports[event["run_id"]] = event
                case "run_failed":
                    failed.update(event)

        outcome: JobOutcome = asyncio.run(tail(submission_id, events_to(on_event)))
    if outcome.status != "SUCCEEDED":
        note(f"the job ended {outcome.status}: {failed.get('error') or outcome.message}")
        raise typer.Exit(outcome.exit_code or 5)
    return reports
