"""A run from the command line: planned here, submitted only if something is to be done, followed to its end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import duckdb

from archive.tables import Tables
from batch.accounting import Counts, read_back
from batch.afterwards import extrapolated, seal_what_is_there
from batch.causes import recorded
from batch.id_list import keep_ids
from batch.identity import began_on, require_same_run
from batch.plan import Plan, make_plan, pinned
from batch.run_log import RunLog
from batch.snips.accounting import count_snips
from batch.snips.plan import plan_snips
from batch.spec import RunSpec
from cli.output import Format
from model_store.errors import ResightError
from model_store.store import ModelStore
from serve.cluster import join, read_state
from serve.settings import Settings

NAMES = ("run_id", "accounting", "seconds", "images_per_s", "steady_images_per_s", "bottleneck")
MORE = ("snips", "published", "extrapolated", "left_undone")


def run_to_end(
    spec: RunSpec, settings: Settings, tables: Tables, store: ModelStore, follow: bool, fmt: Format
) -> dict[str, Any]:
    """Facts of the run for print_facts. Exits with the code of the job when it fails; raises ResightError."""
    nothing = _nothing_to_do(spec, settings, tables, store, fmt)
    if nothing is not None:
        return nothing
    keep_ids(settings.tables_url, spec.scope.ids)
    join(settings)
    from batch.submit import submit

    def facts(last: dict[str, Any]) -> dict[str, Any]:
        told = {name: last.get(name) for name in NAMES} | {n: last[n] for n in MORE if n in last}
        return told | _details(fmt, last["counts"], last["stages"])

    return job_to_end(lambda: submit(spec, settings), spec.run_id, follow, fmt, facts)


def job_to_end(
    start: Callable[[], str],
    run_id: str,
    follow: bool,
    fmt: Format,
    facts: Callable[[dict[str, Any]], dict[str, Any]],
) -> dict[str, Any]:
    """Submit the job of a run with `start`, and follow it; `facts` of its report, for print_facts.

    Exits with the code of the job when it fails. Raises what `start` raises.
    """
    if not follow:
        return {"run_id": run_id, "job": start()}
    from cli import follow as following

    quiet = fmt is not Format.table
    reports = following.to_end(start, [run_id], lambda job: following.follow(job, quiet))
    return facts(reports[run_id]) if run_id in reports else {"run_id": run_id}


def _nothing_to_do(
    spec: RunSpec, settings: Settings, tables: Tables, store: ModelStore, fmt: Format
) -> dict[str, Any] | None:
    """The closed accounts of a run that needs no cluster; None when it does."""
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
    return _facts_of_nothing(counts) | more | _details(fmt, asdict(counts), {})


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


def _facts_of_nothing(counts: Counts) -> dict[str, Any]:
    told = {"accounting": counts.line(), "seconds": 0.0, "images_per_s": 0.0}
    return dict.fromkeys(NAMES) | told


def _details(fmt: Format, counts: dict[str, Any], stages: dict[str, Any]) -> dict[str, Any]:
    return {"counts": counts, "stages": stages} if fmt is Format.json else {}
