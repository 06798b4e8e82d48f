"""reprocess: plan here, and only if something is to be done submit a run to the cluster and follow it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from archive.tables import Tables
from batch.accounting import Counts, read_back
from batch.dry_run import dry_run_report
from batch.identity import require_same_run
from batch.options import takes_run_options
from batch.plan import Plan, make_plan, pinned
from batch.spec import RunSpec
from cli.output import Format, FormatOption, note, print_facts
from model_store.errors import ResightError
from model_store.store import ModelStore
from serve.cluster import join, read_state
from serve.settings import Settings


def register(app: typer.Typer) -> None:
    app.command()(reprocess)


@takes_run_options
def reprocess(
    spec: RunSpec,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="print the plan, write nothing")
    ] = False,
    follow: Annotated[bool, typer.Option(help="wait for the end of the run")] = True,
    fmt: FormatOption = Format.table,
) -> None:
    """See every image of the scope with one model version. To resume, run it again.

    Plans first; with nothing to do it ends there. Else it submits `python -m batch.reprocess` to the cluster;
    exit codes are that job's. Example: resight reprocess --model ssdlite-coco --scope latest-per-camera --dry-run
    """
    settings = Settings()
    tables, store = Tables(settings.tables_url), ModelStore(settings.models_url)
    if dry_run:
        print_facts(dry_run_report(spec, tables, store), fmt)
        return
    plan = _plan(spec, tables, store, settings)
    if plan is not None and not plan.todo:
        print_facts(_facts_of_nothing(read_back(tables, plan, spec.run_id), fmt), fmt)
        return
    join(settings)
    from batch.submit import submit
    from cli.follow import follow as follow_run

    submission_id = submit(spec, settings)
    if not follow:
        print_facts({"run_id": spec.run_id, "job": submission_id}, fmt)
        return
    outcome, last = follow_run(submission_id, quiet=fmt is not Format.table)
    if outcome.status == "SUCCEEDED" and not last:
        note(
            f"the run has succeeded, but its report did not come through: ray job logs {submission_id}"
        )
        print_facts({"run_id": spec.run_id}, fmt)
        return
    if outcome.status == "SUCCEEDED":
        print_facts(_facts(last, fmt), fmt)
        return
    note(f"the run ended {outcome.status}: {last.get('error') or outcome.message}")
    raise typer.Exit(outcome.exit_code or 5)


def _plan(spec: RunSpec, tables: Tables, store: ModelStore, settings: Settings) -> Plan | None:
    """None where the tables or models are for the cluster's nodes to see, and not for this machine."""
    try:
        model = pinned(store, spec.model)
        require_same_run(tables, spec, model)
        return make_plan(tables, model, spec.scope, read_only=True)
    except ResightError:
        if read_state(settings) is not None or not settings.address:
            raise
        return None


def _facts(last: dict[str, Any], fmt: Format) -> dict[str, Any]:
    names = ("run_id", "accounting", "seconds", "images_per_s", "steady_images_per_s", "bottleneck")
    more = ("published", "extrapolated", "snips")
    facts = {name: last.get(name) for name in names} | {n: last[n] for n in more if n in last}
    return facts | (
        {"counts": last["counts"], "stages": last["stages"]} if fmt is Format.json else {}
    )


def _facts_of_nothing(counts: Counts, fmt: Format) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "run_id": None,
        "accounting": counts.line(),
        "seconds": 0.0,
        "images_per_s": 0.0,
        "steady_images_per_s": None,
        "bottleneck": None,
    }
    return facts | ({"counts": asdict(counts), "stages": {}} if fmt is Format.json else {})
