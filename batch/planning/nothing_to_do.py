"""Finish a run that has nothing to do without a cluster: its plan, accounting and report."""

from __future__ import annotations

from functools import partial
from typing import Any

from archive.delta.tables import Tables
from batch.planning.pass_of import pass_of
from batch.planning.plan import Plan, plan_pass
from batch.runs.accounting import planned_counts, read_back
from batch.runs.post_run import extrapolated, seal_what_is_there, try_steps
from batch.runs.record import RunLog, recorded
from batch.runs.report import report_of_plan
from batch.runs.resume import require_same_run, tables_of_unsealed
from batch.runs.spec import PassSpec, RunSpec
from model_store.errors import ResightError
from model_store.lazy_imports import lazy_imports
from model_store.store import ModelStore
from serve.cluster.head import read_state
from serve.settings import Settings

with lazy_imports():
    from batch.crops.plan import plan_snips


def report_of_nothing(spec: PassSpec, settings: Settings, tables: Tables, store: ModelStore) -> dict[str, Any] | None:
    """Return what the job of this run would report; None if there is something to do. Raises ResightError."""
    plan = _plan(spec, tables, store, settings)
    if plan is None or plan.todo:
        return None
    try:
        counts = read_back(tables, plan, spec.run_id)
    except ResightError as error:
        if tables_of_unsealed(tables, spec.run_id):  # it was killed after its last commit: record its end
            run_log = RunLog(tables, spec, plan.model.info, spec.run_kind)
            recorded(run_log, planned_counts(plan), error)
        raise
    more: dict[str, Any] = {}
    if isinstance(spec, RunSpec):
        if spec.snips:
            snips = plan_snips(tables, plan, spec, read_only=True)
            if snips.todo:
                return None
            more = {"snips": snips.work.counts(read_back(tables, snips, spec.run_id))}
        more |= seal_what_is_there(spec, plan, tables, store, counts)
        if spec.scope.sample and plan.requested:
            more |= try_steps(spec.run_id, partial(extrapolated, plan, tables, store, 0.0))
    return report_of_plan(plan, counts, more).as_dict()


def _plan(spec: PassSpec, tables: Tables, store: ModelStore, settings: Settings) -> Plan | None:
    """Return the plan; None if only the cluster's nodes can read the tables or models."""
    try:
        work = pass_of(spec, tables, store)
        require_same_run(tables, spec, work.model, store)
        past = tables_of_unsealed(tables, spec.run_id)
        return plan_pass(tables, work, spec.scope, read_only=True, past=past)
    except ResightError:
        if read_state(settings) is not None or not settings.address:
            raise
        return None
