"""The plan of a run as a report; nothing is written, and no cluster is needed."""

from __future__ import annotations

from typing import Any

from archive.tables import Tables
from batch.estimate import estimate
from batch.identity import began_on
from batch.plan import make_plan, pinned
from batch.snips.dry_run import snips_report
from batch.spec import RunSpec
from model_store.store import ModelStore
from serve.cluster import read_state
from serve.settings import Settings


def dry_run_report(spec: RunSpec, tables: Tables, store: ModelStore) -> dict[str, Any]:
    """Counts, bytes and a time estimate, None where it is unknown. Raises ModelError, StorageError."""
    model = pinned(store, spec.model)
    past = began_on(tables, spec.run_id)
    plan = make_plan(tables, model, spec.scope, read_only=True, past=past)
    settings = Settings()
    is_here = read_state(settings) is not None or not settings.address
    expected = estimate(tables, plan, store, measure=is_here)
    return {
        "model": str(model.id),
        "inference_key": model.info.inference_key,
        "scope": spec.scope.words(),
        "files": plan.files,
        "requested": plan.requested,
        "reused": plan.reused,
        "to_infer": plan.todo,
        "bytes": plan.todo_bytes,
        "estimate_s": expected.seconds and round(expected.seconds, 1),
        "estimate_from": expected.basis,
        **(snips_report(spec, plan, tables) if spec.snips else {}),
    }
