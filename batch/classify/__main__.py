"""The job: `ray job submit --working-dir . -- python -m batch.classify --model NAME …`.

Also `resight classify`, which submits exactly this. Output: JSON lines, the last one is the report.
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
from batch.classify.options import takes_classify_options
from batch.classify.spec import ClassifySpec
from batch.exit_codes import exit_code
from batch.join import connect
from batch.options import require_model
from model_store.errors import ResightError
from model_store.store import ModelStore
from serve.logs import configure_logs
from serve.priority import give_way_all
from serve.settings import Settings

log = structlog.get_logger("resight.run")


@takes_classify_options
def main(
    spec: ClassifySpec,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="print the plan, write nothing")
    ] = False,
) -> None:
    """Classify crops of what the published view shows, and write what was said of them.

    Example: python -m batch.classify --model efficientnet-lite0 --labels animal
    """
    require_model(spec)
    settings = Settings()
    tables, store = Tables(settings.tables_url), ModelStore(settings.models_url)
    if dry_run:
        from batch.classify.dry_run import dry_run_report

        print(json.dumps(dry_run_report(spec, tables, store)), flush=True)
        return
    connect(settings)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # after Ray has set its own
    give_way_all()
    from batch.classify.run import execute

    report = execute(spec, tables, store)
    log.info(
        "report",
        run_id=spec.run_id,
        accounting=report.counts.line(),
        counts=asdict(report.counts),
        seconds=round(report.seconds, 2),
        detections_per_s=round(report.detections_per_s, 2),
        bottleneck=report.stages.get("bottleneck"),
        stages=report.stages,
        **{name: report.metrics[name] for name in ("view", "classifier_key")},
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
