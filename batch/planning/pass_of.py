"""Pin the inputs of a run: spec --pass_of--> the pass of exactly one model version, and of one view to classify."""

from __future__ import annotations

from archive.delta.tables import Tables
from batch.classify.plan import classify_pass
from batch.planning.passes import DetectPass, Pass
from batch.planning.plan import Plan, pinned, plan_pass
from batch.runs.resume import tables_of_unsealed
from batch.runs.spec import ClassifySpec, PassSpec
from model_store.store import ModelStore


def pass_of(spec: PassSpec, tables: Tables, store: ModelStore) -> Pass:
    """Return the pass of a spec. Raises BadRequest, ModelError or StorageError."""
    if isinstance(spec, ClassifySpec):
        return classify_pass(tables, store, spec, pinned(store, spec.model, "classifier"))
    return DetectPass(pinned(store, spec.model))


def plan_ahead(spec: PassSpec, work: Pass, tables: Tables) -> Plan:
    """Plan a run before it starts; nothing is written. Raises as `plan_pass`."""
    past = tables_of_unsealed(tables, spec.run_id)
    return plan_pass(tables, work, spec.scope, read_only=True, past=past)
