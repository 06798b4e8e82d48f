"""The job: `ray job submit --working-dir . -- python -m batch.filters --spec JSON …`, one spec for each run.

What `resight filters run` and POST /runs/filters/{kind} submit. Output: JSON lines, the last of each run its report.
"""

from __future__ import annotations

import signal
import sys
from typing import Annotated

import structlog
import typer

from archive.tables import Tables
from batch.exit_codes import exit_code
from batch.filters.spec import FilterSpec
from batch.join import connect
from model_store.errors import ResightError
from serve.logs import configure_logs
from serve.priority import give_way_all
from serve.settings import Settings

log = structlog.get_logger("resight.filter")


def main(
    specs: Annotated[list[str], typer.Option("--spec", help="a FilterSpec as JSON")],
    run_id: Annotated[list[str], typer.Option("--run-id", help="of each, for whoever lists jobs")],
) -> None:
    """Run filters, one after the other. Example: resight filters run small-size --scope run=published"""
    del run_id
    asked = [FilterSpec.model_validate_json(text) for text in specs]
    settings = Settings()
    connect(settings)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # after Ray has set its own
    give_way_all()
    from batch.filters.run import execute
    from batch.filters.stage import on_cluster

    for spec in asked:
        report = execute(spec, Tables(settings.tables_url), on_cluster)
        log.info("report", run_id=spec.run_id, seconds=round(report.seconds, 2), **report.metrics())


if __name__ == "__main__":
    configure_logs()
    app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
    app.command()(main)
    try:
        app()
    except ResightError as error:
        log.error("run_failed", kind=type(error).__name__, error=str(error))
        sys.exit(exit_code(error))
