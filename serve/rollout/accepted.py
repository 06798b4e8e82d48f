"""Operations that were accepted and have not ended, one small file each: they outlive the process that runs them.

<models>/<name>/.rollout/operations/<operation id>.json; removed when the event of its end is in the log.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import structlog
from pydantic import ValidationError

from model_store.names import NAME
from model_store.store import ModelStore
from serve.rollout.events import event_of
from serve.rollout.operations import Outcome
from serve.rollout.state import Frozen
from serve.rollout.steps import Begun

OPERATIONS = ".rollout/operations"
log = structlog.get_logger("resight.rollout")


class Accepted(Frozen):
    outcome: Outcome
    begun: Begun


def keep(store: ModelStore, accepted: Accepted) -> Accepted:
    """Write it, unless the model has no folder, and return it; or what was written under its id before, by another
    process or by this one, if the store's acknowledgement was lost. Raises StorageUnreachable.
    """
    path = _path(accepted.outcome)
    if store.folder.exists(accepted.outcome.operation.name):
        try:
            store.folder.create(path, accepted.model_dump_json(indent=1).encode())
        except FileExistsError:
            return _read(store, path) or accepted
    return accepted


def forget(store: ModelStore, outcome: Outcome) -> None:
    """Remove it, unless the store refuses: an operation has ended once its event is in the log."""
    try:
        store.folder.remove(_path(outcome))
    except Exception as error:  # file systems raise their own kinds
        log.warning("operation_not_removed", id=outcome.id, error=str(error))


def open_operations(store: ModelStore) -> Iterator[Accepted]:
    """Yield the operations of all models, oldest first for each; skip damaged files. Raises StorageUnreachable."""
    for name in store.names():
        files = store.folder.names(f"{name}/{OPERATIONS}")
        found = [one for file in files if (one := _read(store, f"{name}/{OPERATIONS}/{file}"))]
        yield from sorted(found, key=lambda one: one.outcome.asked_at)


def outcome_of(store: ModelStore, outcome_id: str) -> Outcome | None:
    """Return the outcome of an operation, open or ended, whichever process accepted it; None if none did.

    Raises StorageUnreachable.
    """
    name, _, number = outcome_id.rpartition("-")
    if not (NAME.fullmatch(name) and re.fullmatch("[0-9a-f]+", number)):
        return None
    found = _read(store, f"{name}/{OPERATIONS}/{outcome_id}.json")
    if event := event_of(store, name, outcome_id):
        return event.outcome
    return found and found.outcome


def _path(outcome: Outcome) -> str:
    return f"{outcome.operation.name}/{OPERATIONS}/{outcome.id}.json"


def _read(store: ModelStore, path: str) -> Accepted | None:
    try:
        return Accepted.model_validate_json(store.folder.read(path))
    except (FileNotFoundError, ValidationError):
        return None
