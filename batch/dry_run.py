"""The plan of a run as a report; nothing is written, and no cluster is needed."""

from __future__ import annotations

from typing import Any

from archive.tables import Tables
from batch.estimate import estimate_s
from batch.identity import began_on
from batch.plan import make_plan, pinned
from batch.snips.dry_run import snips_report
from batch.spec import RunSpec
from model_store.store import ModelStore


def dry_run_report(spec: RunSpec, tables: Tables, store: ModelStore) -> dict[str, Any]:
    """Counts, bytes and a time estimate. Raises ModelError, StorageError."""
    model = pinned(store, spec.model)
    past = began_on(tables, spec.run_id)
    plan = make_plan(tables, model, spec.scope, read_only=True, past=past)
    seconds = estimate_s(plan, store)
    return {
        "model": str(model.id),
        "inference_key": model.info.inference_key,
        "scope": spec.scope.words(),
        "files": plan.files,
        "requested": plan.requested,
        "reused": plan.reused,
        "to_infer": plan.todo,
        "bytes": plan.todo_bytes,
        "estimate_s": None if seconds is None else round(seconds, 1),
        **(snips_report(spec, plan, tables) if spec.snips else {}),
    }
