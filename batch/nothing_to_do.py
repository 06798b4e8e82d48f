"""A run that has nothing to do needs no cluster: its plan, closed accounts and report, made where the command runs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import duckdb

from archive.tables import Tables
from batch.accounting import Counts, read_back
from batch.afterwards import extrapolated, seal_what_is_there
from batch.causes import recorded
from batch.identity import began_on, require_same_run
from batch.plan import Plan, make_plan, pinned
from batch.run_log import RunLog
from batch.snips.accounting import count_snips
from batch.snips.plan import plan_snips
from batch.spec import RunSpec
from model_store.errors import ResightError
from model_store.store import ModelStore
from serve.cluster import read_state
from serve.settings import Settings


def report_of_nothing(
    spec: RunSpec, settings: Settings, tables: Tables, store: ModelStore
) -> dict[str, Any] | None:
    """Return what the job of this run would report; None when there is something to do. Raises ResightError."""
    plan = _plan(spec, tables, store, settings)
    if plan is None or plan.todo:
        return None
    try:
        counts = read_back(tables, plan, spec.run_id)
    except ResightError as error:
        if began_on(
            tables, spec.run_id
        ):  # it was killed after its last commit, and this is its end
            so_far = Counts(plan.requested, reused=plan.reused)
            recorded(RunLog(tables, spec, plan.model.info), so_far, error)
        raise
    more: dict[str, Any] = {}
    if spec.snips:
        snips = plan_snips(tables, plan, spec, read_only=True)
        if snips.todo:
            return None
        more = {"snips": count_snips(tables, snips, spec.run_id).as_dict()}
    more |= seal_what_is_there(spec, plan, tables, store, counts)
    if spec.scope.sample and plan.requested:
        more |= _extrapolated(plan, tables, store)
    report: dict[str, Any] = {"run_id": None, "accounting": counts.line(), "seconds": 0.0}
    report |= {"images_per_s": 0.0, "steady_images_per_s": None, "bottleneck": None}
    return report | more | {"counts": asdict(counts), "stages": {}}


def _extrapolated(plan: Plan, tables: Tables, store: ModelStore) -> dict[str, Any]:
    try:
        return {"extrapolated": extrapolated(plan, tables, store, images_per_s=0.0)}
    except (ResightError, duckdb.Error) as error:  # the accounts are closed all the same
        return {"left_undone": str(error)}


def _plan(spec: RunSpec, tables: Tables, store: ModelStore, settings: Settings) -> Plan | None:
    """None where the tables or models are for the cluster's nodes to see, and not for this machine."""
    try:
        model = pinned(store, spec.model)
        require_same_run(tables, spec, model, store=store)
        past = began_on(tables, spec.run_id)
        return make_plan(tables, model, spec.scope, read_only=True, past=past)
    except ResightError:
        if read_state(settings) is not None or not settings.address:
            raise
        return None
