"""Run the steps that follow a sealed run: the first publication, an estimate from a sample, compaction.

They change no row. Each is tried, and the run has succeeded even if some of them fail.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import structlog

from archive.delta.compact import compact
from archive.delta.tables import Tables
from archive.views.publications import last_event
from archive.views.views import View, Views
from batch.planning.plan import Plan
from batch.runs.record import in_words
from batch.runs.spec import PassSpec
from batch.schedule.policy import policy_of
from model_store.lazy_imports import lazy_imports
from model_store.store import ModelStore
from serve.settings import Settings

with lazy_imports():
    from batch.publishing.impact.compare import compared
    from batch.publishing.impact.extrapolate import extrapolate, sample_counts
    from batch.publishing.impact.result_sets import side, side_of_view
    from batch.publishing.impact.verdict import failed_gates
    from batch.publishing.publish import publish_first

COMPACTED_FROM = 64
"""Files of a partition from which it is compacted: a run of an hour leaves about 700 small ones."""
Step = Callable[[], Mapping[str, Any]]
"""Step after a run; it returns facts for the report."""
log = structlog.get_logger("resight.run")


def afterwards(
    spec: PassSpec, plan: Plan, tables: Tables, store: ModelStore, images_per_s: float, compacting: bool = True
) -> dict[str, Any]:
    """Return `published`, `extrapolated`, `next` and `left_undone` for the report, each if it applies.

    `compacting`: merge small files, which takes 10 s per million rows.
    """
    steps: list[Step] = []
    if spec.run_kind == "detect" and spec.scope.sample:
        steps.append(partial(extrapolated, plan, tables, store, images_per_s))
    elif spec.run_kind == "detect":
        steps.append(partial(publish_if_first, tables, store, spec.run_id))
    key = plan.work.key["inference_key"]
    partitions = {**dict.fromkeys(plan.work.compacted, key), "runs": None}
    if compacting:
        steps += [partial(_compacted, tables, *partition) for partition in partitions.items()]
    return try_steps(spec.run_id, *steps)


def try_steps(run_id: str, *steps: Step) -> dict[str, Any]:
    """Try every step of a sealed run; return the facts of all, and in `left_undone` the errors of those that failed."""
    facts, errors = dict[str, Any](), list[str]()
    for step in steps:
        try:
            facts |= step()
        except Exception as error:  # the run is sealed already
            errors.append(in_words(error))
            log.warning("afterwards", run_id=run_id, error=errors[-1])
    return facts | ({"left_undone": "; ".join(errors)} if errors else {})


def _compacted(tables: Tables, name: str, partition: str | None) -> dict[str, Any]:
    """Merge the small files of a table in this partition; None: in all."""
    compact(tables, name, partition, COMPACTED_FROM)
    return {}


def publish_if_first(tables: Tables, store: ModelStore, run_id: str) -> dict[str, Any]:
    """Publish the run if nothing is published yet; return `published` or `next` for the report. Raises GateClosed."""

    def check(old: View | None, new: View) -> list[str]:
        return failed_gates(tables, old, new, policy_of(Settings()).gates)

    view = publish_first(tables, store, run_id, check=check)
    if view:
        return {"published": f"{view.name} {view.serial}: nothing was published before"}
    view, run = Views(tables.url).current(), last_event(tables, run_id)
    if view and run and view.inference_key != run["inference_key"]:
        return {"next": f"not published; compare: resight runs diff published {run_id}"}
    return {}


def extrapolated(plan: Plan, tables: Tables, store: ModelStore, images_per_s: float) -> dict[str, Any]:
    """Return `extrapolated`: the cost of the whole scope and the changes of the published view, from a sample; `next`.

    The cost includes the sample, at `images_per_s` without start-up; None if that is 0, because nothing had to be
    done. Changes have 95 % intervals (`batch/publishing/impact/extrapolate.py`).
    """
    facts: dict[str, Any] = {
        "sampled": plan.requested,
        "population": plan.population,
        "seconds": round(plan.population_todo / images_per_s, 1) if images_per_s else None,
    }
    view = Views(tables.url).current()
    if view is None or view.inference_key == plan.model.info.inference_key:
        return {"extrapolated": facts}
    new = side(tables, store, str(plan.model.id))
    with compared(tables, side_of_view(view), new, plan.requested_ids()) as comparison:
        counts = sample_counts(comparison.sql)
    facts |= extrapolate(counts, plan.requested, plan.population).model_dump(mode="json")
    return {"extrapolated": facts, "next": f"resight runs diff published {plan.model.id}"}
