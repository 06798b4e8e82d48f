"""Write the best batch and wait of a sweep into the version's own entry of deployment.json, and undo it.

The record, applied.json in the report's folder, is written first, so that an interrupted write can be undone.
"""

from __future__ import annotations

import contextlib
from typing import Any

from pydantic import ValidationError

from model_store.deployment import own_entry, write_entry
from model_store.errors import BadRequest, Conflict, ModelError, ObjectiveMissed, StorageUnsafe
from model_store.frozen import Frozen, wrong_fields
from model_store.names import parse_version
from model_store.storage import Folder, absolute
from model_store.store import ModelStore
from serve.settings import DetectArgs
from serve.tune.report import verdict
from serve.tune.results import Hardware, TuningResult

APPLIED = "applied.json"
MAX_UNSTEADY = 0.3  # of the current settings: beyond it the best point may be chance


class Applied(Frozen):
    """The version's own entry in deployment.json before and after; `before` is None if it had none."""

    model: str
    before: dict[str, Any] | None
    after: dict[str, Any]


def apply_best(
    store: ModelStore, result: TuningResult, pool: DetectArgs, out: str
) -> Applied | None:
    """Write the best applicable settings. Return None if the current ones are the best. `pool` is the model's.

    Raises ObjectiveMissed if no batch meets the objective with the pool as it is, BadRequest if the version is not the
    measured one, Conflict if the report is applied already, the machine was unsteady, or pool or entry have changed.
    """
    folder, version = Folder(absolute(out)), parse_version(result.model)
    if result.applies is None:
        raise ObjectiveMissed(
            f"nothing was written: no batch is fast enough in this pool; {verdict(result)}"
        )
    if store.describe(version).info.inference_key != result.inference_key:
        raise BadRequest(f"{version} of {store.url} is not the measured version: tune again")
    applied_before = Conflict(f"{out} is applied already: undo it first, or tune again")
    if folder.exists(APPLIED):
        raise applied_before
    entry = own_entry(store, version)
    was = {"pool": result.pool, **result.current.hardware._asdict(), "own entry": result.entry}
    now = {"pool": pool.pool, **Hardware.of(pool)._asdict(), "own entry": entry}
    changes = [f"{name} was {was[name]}, now {now[name]}" for name in was if was[name] != now[name]]
    if changes:
        changed = "; ".join(changes)
        raise Conflict(
            f"nothing was written: {version} was measured with other settings ({changed}): tune again"
        )
    if result.applies == result.current:
        return None
    if result.unsteady > MAX_UNSTEADY:
        varied = f"throughput of the current settings varied by {result.unsteady:.0%}"
        raise Conflict(
            f"nothing was written: {varied}, so the best may be chance: use a quiet machine"
        )
    batch = {"max": result.applies.batch, "wait_ms": result.applies.wait_ms}
    applied = Applied(model=result.model, before=entry, after=(entry or {}) | {"batch": batch})
    try:
        folder.create(APPLIED, applied.model_dump_json(indent=1).encode())
    except FileExistsError:
        raise applied_before from None
    try:
        write_entry(store, version, applied.after, expected=entry)
    except Exception as error:
        with contextlib.suppress(Exception):  # the record stays if the entry may have been written
            rejected = isinstance(error, Conflict | ModelError | StorageUnsafe)
            if rejected or own_entry(store, version) != applied.after:
                folder.remove(APPLIED)
        raise
    return applied


def undo(store: ModelStore, model: str, out: str) -> Applied:
    """Restore the entry from before --apply.

    Raises BadRequest if this report is not applied or of another model, Conflict if the entry has changed since.
    """
    folder, version = Folder(absolute(out)), parse_version(model)
    try:
        applied = Applied.model_validate_json(folder.read(APPLIED))
    except FileNotFoundError:
        raise BadRequest(f"{out} is not applied: there is nothing to undo") from None
    except ValidationError as error:
        raise BadRequest(f"{out}/{APPLIED} is damaged: {wrong_fields(error, Applied)}") from error
    if applied.model != model:
        raise BadRequest(f"{out} is a report of {applied.model}, not of {model}")
    entry = own_entry(store, version)
    if entry not in (applied.after, applied.before):
        raise Conflict(
            f"{model} has other settings now ({entry}): edit its deployment.json by hand; it had {applied.before}"
        )
    write_entry(store, version, applied.before, expected=entry)
    folder.remove(APPLIED)
    return applied
