"""classify: a classifier over crops of what the published view shows; nothing is detected again."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from batch.classify.options import classify_arguments, takes_classify_options
from batch.options import require_model
from cli.follow import facts_of, interruptible, submitted, to_end
from cli.output import Format, FormatOption, print_facts
from model_store.errors import ResightError
from model_store.lazy_imports import lazy_imports

with lazy_imports():
    from archive.tables import Tables
    from batch.classify import spec as specs
    from batch.classify.accounting import count_classified
    from batch.classify.dry_run import dry_run_report
    from batch.classify.plan import CropPlan, plan_crops, view_to_classify
    from batch.classify.spec import ClassifySpec
    from batch.id_list import keep_ids
    from batch.identity import began_on, require_same_run
    from batch.plan import pinned
    from model_store.store import ModelStore
    from serve.cluster import join, read_state
    from serve.settings import Settings


def register(app: typer.Typer) -> None:
    app.command()(classify)


@takes_classify_options
def classify(
    spec: ClassifySpec,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="print the plan, write nothing")
    ] = False,
    follow: Annotated[bool, typer.Option(help="wait for the end of the run")] = True,
    fmt: FormatOption = Format.table,
) -> None:
    """Run a classifier over crops of the detections that are shown. To resume, run it again.

    Plans first; with nothing to do it ends there. Else it submits `python -m batch.classify` to the cluster;
    exit codes are that job's. Example: resight classify --model efficientnet-lite0@1 --labels animal --dry-run
    """
    require_model(spec)
    settings = Settings()
    tables, store = Tables(settings.tables_url), ModelStore(settings.models_url)
    if dry_run:
        print_facts(dry_run_report(spec, tables, store), fmt)
        return
    print_facts(_to_end(spec, settings, tables, store, follow, fmt), fmt)


def _to_end(
    spec: ClassifySpec,
    settings: Settings,
    tables: Tables,
    store: ModelStore,
    follow: bool,
    fmt: Format,
) -> dict[str, Any]:
    with interruptible():
        plan = _plan(spec, settings, tables, store)
        if plan is not None and not plan.todo:
            return facts_of(_report_of_nothing(spec, tables, plan), fmt, tables)
        keep_ids(settings.tables_url, spec.scope.ids)
        join(settings)
    from batch.submit import submit_job

    def start() -> str:
        return submit_job("batch.classify", spec.run_id, classify_arguments(spec), settings)

    if not follow:
        return {"run_id": spec.run_id, "job": submitted(start, [spec.run_id])}
    reports = to_end(start, [spec.run_id], fmt is not Format.table)
    return facts_of(reports.get(spec.run_id, {"run_id": spec.run_id}), fmt, tables)


def _plan(
    spec: ClassifySpec, settings: Settings, tables: Tables, store: ModelStore
) -> CropPlan | None:
    """None where the tables or models are for the cluster's nodes to see, and not for this machine."""
    try:
        model = pinned(store, spec.model, "classifier")
        require_same_run(tables, spec, model, "classify", specs.SAME)
        view = view_to_classify(tables, store, spec)
        past = began_on(tables, spec.run_id)
        return plan_crops(tables, view, model, spec, read_only=True, past=past)
    except ResightError:
        if read_state(settings) is not None or not settings.address:
            raise
        return None


def _report_of_nothing(spec: ClassifySpec, tables: Tables, plan: CropPlan) -> dict[str, Any]:
    counts = count_classified(tables, plan, spec.run_id)
    report: dict[str, Any] = {"run_id": None, "accounting": counts.line(), "seconds": 0.0}
    report |= {"detections_per_s": 0.0, "bottleneck": None}
    report |= {"view": f"{plan.view.name} {plan.view.serial}"}
    report |= {"classifier_key": plan.target.classifier_key}
    return report | {"counts": asdict(counts), "stages": {}}
