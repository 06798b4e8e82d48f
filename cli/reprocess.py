"""reprocess: see what lacks results, all of a scope or what the policy says is due."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from batch.options import takes_run_options
from cli.follow import facts_of, interruptible, submitted, to_end
from cli.layers import tell_silent
from cli.output import Format, FormatOption, note, print_facts
from model_store.errors import BadRequest
from model_store.lazy_imports import lazy_imports

with lazy_imports():
    from archive.tables import Tables
    from archive.views import Views
    from batch.dry_run import dry_run_report
    from batch.facts import wanted_version
    from batch.id_list import keep_ids
    from batch.if_needed import Needed, if_needed, rolled_back_since
    from batch.impact.gates import failed_gates
    from batch.nothing_to_do import report_of_nothing
    from batch.policy import read_policy
    from batch.publish import publish
    from batch.scope import Scope
    from batch.scope_options import scope_arguments
    from batch.spec import RunSpec
    from model_store.store import ModelStore
    from serve.cluster import join
    from serve.settings import Settings


def register(app: typer.Typer) -> None:
    app.command()(reprocess)


@takes_run_options
def reprocess(
    spec: RunSpec,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="print the plan, write nothing")
    ] = False,
    needed: Annotated[
        bool, typer.Option("--if-needed", help="only what the policy says is due; safe in cron")
    ] = False,
    publishes: Annotated[
        bool, typer.Option("--publish", help="with --if-needed: publish it, if all gates pass")
    ] = False,
    follow: Annotated[bool, typer.Option(help="wait for the end of the run")] = True,
    fmt: FormatOption = Format.table,
) -> None:
    """See every image of the scope with one model version. To resume, run it again.

    Without --model: the published model's, by its name, or the only model's. Plans first; with nothing to do it ends
    there.
    Else it submits `python -m batch.reprocess` to the cluster; exit codes are that job's.
    Example: resight reprocess --model ssdlite-coco --camera north --since 2026-05-01 --dry-run
    """
    settings = Settings()
    tables, store = Tables(settings.tables_url), ModelStore(settings.models_url)
    if needed:
        _require_alone(spec, dry_run, publishes, follow)
        _if_needed(spec, settings, tables, store, publishes, follow, fmt)
        return
    if publishes:
        raise BadRequest("--publish goes with --if-needed; otherwise: resight runs publish RUN")
    if not spec.model:
        model = wanted_version(store, Views(tables.url).current())
        note(f"model: {model.id}")
        spec = spec.model_copy(update={"model": str(model.id)})
    if dry_run:
        report = dry_run_report(spec, tables, store)
        if fmt is Format.table:
            unknown = "unknown" if report["estimate_s"] is None else report["estimate_s"]
            report |= {"estimate_s": unknown}
        print_facts(report, fmt)
        return
    print_facts(_to_end(spec, settings, tables, store, follow, fmt), fmt)


def _to_end(
    spec: RunSpec, settings: Settings, tables: Tables, store: ModelStore, follow: bool, fmt: Format
) -> dict[str, Any]:
    """Facts of the run: planned here, submitted only if something is to be done, followed to its end."""
    with interruptible():
        report = report_of_nothing(spec, settings, tables, store)
        if report is not None:
            return facts_of(report, fmt, tables)
        keep_ids(settings.tables_url, spec.scope.ids)
        join(settings)
    from batch.submit import submit

    def start() -> str:
        return submit(spec, settings)

    if not follow:
        return {"run_id": spec.run_id, "job": submitted(start, [spec.run_id])}
    reports = to_end(start, [spec.run_id], fmt is not Format.table)
    return facts_of(reports.get(spec.run_id, {"run_id": spec.run_id}), fmt, tables)


def _if_needed(
    spec: RunSpec,
    settings: Settings,
    tables: Tables,
    store: ModelStore,
    publishes: bool,
    follow: bool,
    fmt: Format,
) -> None:
    policy = read_policy(settings.policy_path, required=bool(settings.policy))
    due = if_needed(tables, store, policy, spec.model, publishes)
    facts = _decision(due)
    for reason in due.decision.reasons:
        note(f"{due.decision.action}: {reason}")
    if due.scope is not None and due.run_id is not None:
        model = str(due.model.id)
        changed = {"model": model, "scope": due.scope, "run_id": due.run_id}
        facts |= _to_end(spec.model_copy(update=changed), settings, tables, store, follow, fmt)
    if due.publish:
        view = publish(
            tables,
            store,
            str(due.model.id),
            reason=f"--if-needed, decision {due.decision_id}",
            complete=due.scope is None,
            check=lambda old, new: [
                *rolled_back_since(tables, new),
                *failed_gates(tables, old, new, policy.gates),
            ],
        )
        facts["published"] = f"{view.name} {view.serial}"
        tell_silent(tables, view)
    print_facts(facts, fmt)


def _decision(due: Needed) -> dict[str, Any]:
    return {
        "decision": due.decision.action,
        "decision_id": due.decision_id,
        "model": str(due.model.id),
        "reasons": list(due.decision.reasons),
    }


def _require_alone(spec: RunSpec, dry_run: bool, publishes: bool, follow: bool) -> None:
    """Raises BadRequest for options that contradict --if-needed, which chooses the scope itself."""
    if dry_run:
        raise BadRequest("--if-needed has its own dry run: resight plan")
    if spec.scope != Scope():
        raise BadRequest(
            f"--if-needed chooses the images; leave out {' '.join(scope_arguments(spec.scope))}"
        )
    if publishes and not follow:
        raise BadRequest("--publish waits for the end of the run: leave out --no-follow")
