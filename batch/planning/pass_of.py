"""Pin the inputs of a run: spec --pass_of--> the pass of exactly one model version, and of one view to classify."""

from __future__ import annotations

from archive.delta.tables import Tables
from batch.classify.plan import classify_pass
from batch.classify.spec import ClassifySpec
from batch.planning.passes import DetectPass, Pass
from batch.planning.plan import pinned
from batch.runs.spec import PassSpec
from model_store.store import ModelStore


def pass_of(spec: PassSpec, tables: Tables, store: ModelStore) -> Pass:
    """Return the pass of a spec. Raises BadRequest, ModelError or StorageError."""
    if isinstance(spec, ClassifySpec):
        return classify_pass(tables, store, spec, pinned(store, spec.model, "classifier"))
    return DetectPass(pinned(store, spec.model))
