"""Follow a job of several runs from the command line, to its end; its reports by run."""

from __future__ import annotations

import asyncio
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from batch.submit import tail
from cli.follow import Followed, events_to
from cli.output import errors


def follow_several(submission_id: str, runs: int) -> Followed:
    """Show the runs of a job, one after the other, until all reports have come, or it ends without."""
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

        outcome = asyncio.run(
            tail(submission_id, events_to(on_event), lambda: len(reports) == runs)
        )
    return Followed(outcome, reports, failed)
