"""The job: `ray job submit --working-dir . -- python -m batch.filters --run-id ID …`.

Submitted by `resight filters run` and POST /runs/filters/{kind}, which store the specs in a folder of the tables.
Output: JSON lines; the last of each run is its report.
"""

from __future__ import annotations

from typing import Annotated

import structlog
import typer

from archive.delta.tables import Tables
from batch.filters.spec import read_spec
from batch.jobs.entry import Here, begin, run_job
from serve.settings import Settings

LOGGER = "resight.filter"
log = structlog.get_logger(LOGGER)


def main(
    run_id: Annotated[
        list[str], typer.Option("--run-id", help="id of a submitted run; repeat it to execute several in this order")
    ],
    here: Here = False,
) -> None:
    """Execute submitted filter runs in order. To submit one: resight filters run small-size"""
    settings = Settings()
    specs = [read_spec(settings.tables_url, name) for name in run_id]
    begin(settings, here)
    from batch.filters import run

    judge = run.here
    if not here:
        from batch.filters.stage import on_cluster

        judge = on_cluster
    for report in run.execute_all(specs, Tables(settings.tables_url), judge):
        seconds = round(report.seconds, 2)
        log.info("report", run_id=report.run_id, seconds=seconds, **report.metrics())


if __name__ == "__main__":
    run_job(main, LOGGER)
