"""The plan of a classify run as a report; nothing is written, and no cluster is needed."""

from __future__ import annotations

from typing import Any

from archive.tables import Tables
from batch.classify.plan import plan_crops, plan_facts, view_to_classify
from batch.classify.spec import ClassifySpec
from batch.plan import pinned
from model_store.store import ModelStore


def dry_run_report(spec: ClassifySpec, tables: Tables, store: ModelStore) -> dict[str, Any]:
    """Counts of detections, and what is to be read for them. Raises ModelError, StorageError, BadRequest."""
    model = pinned(store, spec.model, "classifier")
    plan = plan_crops(tables, view_to_classify(tables, store, spec), model, spec, read_only=True)
    return {"model": str(model.id), "scope": spec.scope.words(), **plan_facts(plan)}
