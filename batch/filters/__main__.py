"""The job: `ray job submit --working-dir . -- python -m batch.filters --run-id ID …`.

What `resight filters run` and POST /runs/filters/{kind} submit; the specs are files beside the tables. Output: JSON
lines, the last of each run is its report.
"""

from __future__ import annotations

import signal
import sys
from typing import Annotated

import structlog
import typer

from archive.tables import Tables
from batch.exit_codes import exit_code
from batch.filters.submit import read_spec
from batch.join import connect
from model_store.errors import ResightError
from serve.logs import configure_logs
from serve.priority import give_way_all
from serve.settings import Settings

log = structlog.get_logger("resight.filter")


def main(
    run_id: Annotated[
        list[str], typer.Option("--run-id", help="what was asked for, in this order")
    ],
) -> None:
    """Run filters, one after the other. To ask for one: resight filters run small-size --scope run=published"""
    settings = Settings()
    specs = [read_spec(settings.tables_url, one) for one in run_id]
    connect(settings)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # after Ray has set its own
    give_way_all()
    from batch.filters.run import execute_all
    from batch.filters.stage import on_cluster

    for report in execute_all(specs, Tables(settings.tables_url), on_cluster):
        seconds = round(report.seconds, 2)
        log.info("report", run_id=report.run_id, seconds=seconds, **report.metrics())


if __name__ == "__main__":
    configure_logs()
    app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
    app.command()(main)
    try:
        app()
    except ResightError as error:
        log.error("run_failed", kind=type(error).__name__, error=str(error))
        sys.exit(exit_code(error))
