"""Check that running runs are alive, and that each view shows results that exist."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from archive.annotations.layers import read_layers
from archive.delta.snapshot import partition_keys
from archive.delta.tables import Tables
from archive.views.views import View, Views
from batch.doctor.finding import RESTORE, Finding
from batch.jobs.control import close
from batch.runs.listing import events_of, page
from model_store.errors import StorageError

MOST_RUNS, MOST_EVENTS = 1_000, 1_000_000


def check_runs(tables: Tables) -> Iterator[Finding]:
    """Find runs that are recorded as running, and have written no event for five minutes. The repair cancels them."""
    for run in page(tables, MOST_RUNS, state="interrupted"):
        name = run["run_id"]
        problem = f"it was interrupted: no event since {run['event_at']:%Y-%m-%d %H:%M} UTC"
        action = f"start it again with --run-id {name}, or resight runs cancel {name}"
        yield Finding("runs", name, problem, action, partial(close, tables, name, None))


def check_views(tables: Tables) -> Iterator[Finding]:
    """Find views with lost publications, and current ones that show what does not exist."""
    views = Views(tables.url)
    for name in views.names():
        try:
            history = views.history(name)
        except StorageError as error:
            yield Finding("views", name, str(error), RESTORE)
            continue
        serials = [view.serial for view in history]
        if serials != list(range(1, len(serials) + 1)):
            yield Finding("views", name, f"publications are missing: it has the numbers {serials}", RESTORE)
        for problem in _problems(tables, history[-1]) if history else ():
            yield Finding("views", name, problem, f"publish again with --view {name}, or restore what it lacks")


def _problems(tables: Tables, view: View) -> Iterator[str]:
    states = [event["state"] for event in events_of(tables, view.run_id, MOST_EVENTS)] if view.run_id else ["sealed"]
    if "sealed" not in states:  # a sealed run may be started again
        yield f"its run {view.run_id} is {states[0] if states else 'unknown'}, not sealed"
    if view.inference_key not in partition_keys(tables.existing("results")):
        yield f"no results of its inference key {view.inference_key[:12]} exist"
    if lost := sorted(set(view.layers).difference(read_layers(tables) if view.layers else ())):
        yield f"its layer {lost[0][:12]} does not exist"
