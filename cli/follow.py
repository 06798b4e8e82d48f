"""Follow a run from the command line, as a progress bar, to its end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from batch.submit import JobOutcome, tail
from cli.output import errors, note


def follow(submission_id: str, quiet: bool) -> tuple[JobOutcome, dict[str, Any]]:
    """Show a run until it ends; its outcome and its last `report` or `run_failed` event."""
    last: dict[str, Any] = {}
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
            elif kind in ("report", "run_failed"):
                last.update(event)

        outcome = asyncio.run(tail(submission_id, events_to(on_event)))
    return outcome, last


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
