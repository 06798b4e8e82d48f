"""The job: `ray job submit --working-dir . -- python -m batch.classify --model NAME …`.

Also `resight classify`, which submits exactly this. Output: JSON lines, the last one is the report.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import structlog
import typer

from archive.tables import Tables
from batch.classify.options import takes_classify_options
from batch.classify.spec import ClassifySpec
from batch.job import begin, run_job
from batch.options import require_model
from model_store.store import ModelStore
from serve.settings import Settings

LOGGER = "resight.run"
log = structlog.get_logger(LOGGER)


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
    begin(settings)
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
    run_job(main, LOGGER)
