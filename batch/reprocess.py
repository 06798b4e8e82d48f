"""The job: `ray job submit --working-dir . -- python -m batch.reprocess --model NAME …`.

Also `resight reprocess`, which submits exactly this. Runs where a Ray cluster with the `detect`
application is; places come from RESIGHT_* variables. Output: JSON lines, the last one is the report.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import structlog
import typer

from archive.tables import Tables
from batch.job import begin, run_job
from batch.options import require_model, takes_run_options
from batch.spec import RunSpec
from model_store.store import ModelStore
from serve.settings import Settings

LOGGER = "resight.run"
log = structlog.get_logger(LOGGER)


@takes_run_options
def main(
    spec: RunSpec,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="print the plan, write nothing")
    ] = False,
) -> None:
    """See every image of the scope with one model version, and write what was seen.

    Example: python -m batch.reprocess --model ssdlite-coco --camera deer-north
    """
    require_model(spec)
    settings = Settings()
    tables, store = Tables(settings.tables_url), ModelStore(settings.models_url)
    if dry_run:
        from batch.dry_run import dry_run_report

        print(json.dumps(dry_run_report(spec, tables, store)), flush=True)
        return
    begin(settings)
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
    run_job(main, LOGGER)
