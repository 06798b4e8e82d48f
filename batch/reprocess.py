"""The job: `ray job submit --working-dir . -- python -m batch.reprocess --model NAME …`.

Also `resight reprocess`, which submits exactly this. Runs where a Ray cluster with the `detect`
application is; places come from RESIGHT_* variables. Output: JSON lines, the last one is the report.
"""

from __future__ import annotations

import json
import signal
import sys
from dataclasses import asdict
from typing import Annotated

import structlog
import typer

from archive.tables import Tables
from batch.exit_codes import exit_code
from batch.join import connect
from batch.options import require_model, takes_run_options
from batch.spec import RunSpec
from model_store.errors import ResightError
from model_store.store import ModelStore
from serve.logs import configure_logs
from serve.priority import give_way_all
from serve.settings import Settings

log = structlog.get_logger("resight.run")


@takes_run_options
def main(
    spec: RunSpec,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="print the plan, write nothing")
    ] = False,
) -> None:
    """See every image of the scope with one model version, and write what was seen.

    Example: python -m batch.reprocess --model ssdlite-coco --scope camera --camera deer-north
    """
    require_model(spec)
    settings = Settings()
    tables, store = Tables(settings.tables_url), ModelStore(settings.models_url)
    if dry_run:
        from batch.dry_run import dry_run_report

        print(json.dumps(dry_run_report(spec, tables, store)), flush=True)
        return
    connect(settings)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # after Ray has set its own
    give_way_all()
    from batch.run import execute

    report = execute(spec, tables, store)
    log.info(
        "report",
        run_id=spec.run_id,
        accounting=report.counts.line(),
        counts=asdict(report.counts),
        seconds=round(report.seconds, 2),
        images_per_s=round(report.images_per_s, 2),
        steady_images_per_s=report.steady_images_per_s and round(report.steady_images_per_s, 2),
        bottleneck=report.stages.get("bottleneck"),
        stages=report.stages,
        **report.more,
    )


if __name__ == "__main__":
    configure_logs()
    app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
    app.command()(main)
    try:
        app()
    except ResightError as error:
        log.error("run_failed", kind=type(error).__name__, error=str(error))
        sys.exit(exit_code(error))
