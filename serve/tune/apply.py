"""The best of a sweep into the version's own entry of deployment.json, and back. Nothing else is written.

apply_best(store, tuned, pool, folder) -> Applied, kept as applied.json beside the report; undo(store, model, folder)
The record comes first, so that what a crash leaves can be undone; it goes where the entry was not written.
Batch and wait only: threads, workers and replicas are of the pool, for all its models, and the key is of neither.
"""

from __future__ import annotations

import contextlib
from typing import Any

from pydantic import ValidationError

from model_store.config import Frozen
from model_store.deployment import own_entry, write_entry
from model_store.errors import (
    BadRequest,
    Conflict,
    ModelError,
    ObjectiveMissed,
    StorageUnreachable,
    StorageUnsafe,
)
from model_store.names import parse_version
from model_store.storage import Folder, absolute
from model_store.store import ModelStore
from serve.settings import DetectArgs
from serve.tune.facts import Tuned
from serve.tune.point import Hardware
from serve.tune.words import missed

APPLIED = "applied.json"
MOST_UNSTEADY = 0.3
"""Of the current settings against themselves: beyond it a choice is chance."""
_TWICE = "{} was applied before: undo it first, or tune again"


class Applied(Frozen):
    """The version's own entry before and after; None: it had none."""

    model: str
    before: dict[str, Any] | None
    after: dict[str, Any]


def apply_best(store: ModelStore, tuned: Tuned, pool: DetectArgs, out: str) -> Applied | None:
    """`pool`: the one that the model lives in now. None where the current settings are the best: nothing is
    written.

    Raises ObjectiveMissed where no batch meets the objective with the pool as it is, BadRequest where the version
    is not the one that was measured, Conflict where the report was applied before, pool or entry are not those
    that were measured or the machine was too unsteady, ModelRefused for a file that cannot be read, StorageError.
    """
    if tuned.applies is None:
        raise ObjectiveMissed(
            missed(tuned)
            if tuned.best is None
            else f"no batch of {tuned.model} meets p99 {tuned.objective_p99_ms:g} ms with the pool "
            f"'{tuned.pool}' as it is, so nothing was written: {tuned.best.words} does, see the report"
        )
    version = parse_version(tuned.model)
    if store.describe(version).info.inference_key != tuned.inference_key:
        raise BadRequest(f"{tuned.model} of {store.url} is not the one that was measured")
    folder = Folder(absolute(out))
    if folder.exists(APPLIED):
        raise Conflict(_TWICE.format(out))
    before = own_entry(store, version)
    _require_as_measured(tuned, pool, before)
    if tuned.applies == tuned.current:
        return None
    if tuned.unsteady > MOST_UNSTEADY:
        raise Conflict(
            f"nothing was written: the current settings of {tuned.model} differed from themselves by "
            f"{tuned.unsteady:.0%}, so what seems best may be chance; tune again on a quiet machine"
        )
    after = (before or {}) | {"batch": tuned.applies.filling.model_dump(mode="json")}
    applied = Applied(model=tuned.model, before=before, after=after)
    try:
        folder.create(APPLIED, applied.model_dump_json(indent=1).encode())
    except FileExistsError as error:
        raise Conflict(_TWICE.format(out)) from error
    try:
        write_entry(store, version, after, expected=before)
    except (Conflict, ModelError, StorageUnsafe):
        _forget(folder)
        raise
    except Exception:
        with contextlib.suppress(Exception):  # else nobody knows, and undo takes both
            if own_entry(store, version) != after:
                _forget(folder)
        raise
    return applied


def undo(store: ModelStore, model: str, out: str) -> Applied:
    """The entry as it was before. Raises BadRequest where nothing was applied from this report, Conflict where
    somebody has changed the entry since, StorageError.
    """
    folder = Folder(absolute(out))
    try:
        applied = Applied.model_validate_json(folder.read(APPLIED))
    except FileNotFoundError:
        raise BadRequest(f"{out} was not applied: there is nothing to undo") from None
    except ValidationError as error:
        raise BadRequest(f"{out}/{APPLIED} is damaged: {error.errors()[0]['msg']}") from error
    if applied.model != model:
        raise BadRequest(f"{out} is of {applied.model}, not of {model}")
    version = parse_version(model)
    now = own_entry(store, version)
    if now not in (applied.after, applied.before):
        raise Conflict(
            f"{model} has other settings by now ({now}): change its deployment.json by hand, where it was "
            f"{applied.before}"
        )
    write_entry(store, version, applied.before, expected=now)
    _forget(folder)
    return applied


def _require_as_measured(tuned: Tuned, pool: DetectArgs, entry: dict[str, Any] | None) -> None:
    """Raises Conflict with what is other by now."""
    was = {"pool": tuned.pool, **tuned.current.hardware._asdict(), "own entry": tuned.entry}
    now = {"pool": pool.pool, **Hardware.of(pool)._asdict(), "own entry": entry}
    differs = [f"{name} was {was[name]}, now {now[name]}" for name in was if was[name] != now[name]]
    if differs:
        raise Conflict(
            f"nothing was written: {tuned.model} is not run as it was when it was measured "
            f"({'; '.join(differs)}): tune again"
        )


def _forget(folder: Folder) -> None:
    """Raises StorageUnreachable."""
    try:
        folder.remove(APPLIED)
    except Exception as error:
        raise StorageUnreachable(f"cannot remove {folder.url}/{APPLIED}: {error}") from error
