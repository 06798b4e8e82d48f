"""Operations of a rollout, their outcomes, and their files: frozen, and the same over HTTP.

<models>/<name>/.rollout/events/<UTC time>-<operation id>.json     append-only: when, what, and why if refused
<models>/<name>/.rollout/operations/<operation id>.json            until the event of its end is recorded

Files on S3 cannot be appended to. An accepted operation outlives the process that runs it.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Literal, TypeVar

import structlog
from pydantic import Field, ValidationError, model_validator

from model_store.errors import BadRequest, Conflict, ModelNotFound
from model_store.frozen import Frozen
from model_store.names import DEFAULT_ALIAS, NAME
from model_store.store import ModelStore
from serve.rollout.state import AliasState

Kind = Literal["promote", "rollback", "canary", "shadow", "pin", "unpin", "release", "follow"]
NEEDS_VERSION = {"promote", "release", "follow"}
EVENTS, OPERATIONS = ".rollout/events", ".rollout/operations"
log = structlog.get_logger("resight.rollout")
R = TypeVar("R", bound=Frozen)


class Operation(Frozen):
    """An operation on one alias of one model.

    promote   `version` answers for the alias
    rollback  the previous version answers again; repeated, the one before that
    canary    `version` answers `percent` of the alias's images; 0 ends it
    shadow    `version` runs on `percent` of the alias's images and never answers; 0 ends it
    pin       the alias cannot be moved until `unpin`
    release   replicas unload `version`, if no alias refers to it and no run holds it
    follow    like promote, because aliases.json was changed outside the rollout
    """

    kind: Kind
    name: str
    alias: str = DEFAULT_ALIAS
    version: str | None = None
    percent: float = Field(default=0, ge=0, le=100)

    @model_validator(mode="after")
    def _complete(self) -> Operation:
        needs = self.kind in NEEDS_VERSION or (self.kind in ("canary", "shadow") and self.percent > 0)
        if needs and self.version is None:
            raise ValueError(f"{self.kind} needs a version")
        return self


class Outcome(Frozen):
    """State of an operation; `detail` is what was done, or why it was refused. A refused operation changed nothing."""

    id: str
    operation: Operation
    state: Literal["waiting", "running", "done", "refused"] = "waiting"
    detail: str = ""
    error: str | None = Field(default=None, description="class of the error, if refused")
    asked_at: datetime
    seconds: float = Field(default=0, description="duration of the operation")

    def raise_if_refused(self) -> None:
        """Raise BadRequest, ModelNotFound or Conflict with the reason, if the operation was refused."""
        if self.state != "refused":
            return
        kind = {"BadRequest": BadRequest, "ModelNotFound": ModelNotFound}.get(self.error or "")
        raise (kind or Conflict)(self.detail)


def new_outcome(operation: Operation) -> Outcome:
    """Return a new outcome. Its id contains the model's name, which leads to its file in the store."""
    return Outcome(id=f"{operation.name}-{secrets.token_hex(6)}", operation=operation, asked_at=datetime.now(UTC))


class PreparedOperation(Frozen):
    """An operation, and its alias at the time of the request: its state, and its version in aliases.json."""

    operation: Operation
    before: AliasState | None = None
    wanted: str | None = None


class RolloutEvent(Frozen):
    """An operation that has ended, and what served before and after it."""

    at: datetime
    outcome: Outcome
    before: AliasState | None
    after: AliasState | None


class Accepted(Frozen):
    """An operation that was accepted and has not ended."""

    outcome: Outcome
    prepared: PreparedOperation


def record(store: ModelStore, outcome: Outcome, before: AliasState | None, after: AliasState | None) -> None:
    """Write an event, unless its model has no folder. Raises StorageUnreachable, also for a store without models."""
    name = outcome.operation.name
    if not store.folder.exists(name):
        store.folder.require_present()
        return
    event = RolloutEvent(at=datetime.now(UTC), outcome=outcome, before=before, after=after)
    file = f"{name}/{EVENTS}/{event.at:%Y%m%dT%H%M%S%f}-{outcome.id}.json"
    store.folder.write(file, event.model_dump_json(indent=1).encode())


def events(store: ModelStore, name: str, max_events: int = 20) -> list[RolloutEvent]:
    """Return up to `max_events` events, newest first; skip damaged ones."""
    files = sorted(store.folder.names(f"{name}/{EVENTS}"), reverse=True)[:max_events]
    return [event for file in files if (event := _read(store, f"{name}/{EVENTS}/{file}", RolloutEvent))]


def save_operation(store: ModelStore, accepted: Accepted) -> Accepted:
    """Write an operation, unless its model has no folder, and return it. Raises StorageUnreachable.

    If its id was written before (by another process, or by this one without an acknowledgement), return that record.
    """
    path = _path(accepted.outcome)
    if store.folder.exists(accepted.outcome.operation.name):
        try:
            store.folder.create(path, accepted.model_dump_json(indent=1).encode())
        except FileExistsError:
            return _read(store, path, Accepted) or accepted
    return accepted


def remove_operation(store: ModelStore, outcome: Outcome) -> None:
    """Remove an operation. Errors are only logged: an operation has ended once its event is in the log."""
    try:
        store.folder.remove(_path(outcome))
    except Exception as error:  # each file system has its own error classes
        log.warning("operation_not_removed", id=outcome.id, error=str(error))


def open_operations(store: ModelStore, name: str) -> Iterator[Accepted]:
    """Yield the open operations of a model, oldest first; remove ended ones. Raises StorageUnreachable."""
    files = store.folder.names(f"{name}/{OPERATIONS}")
    records = [record for file in files if (record := _read(store, f"{name}/{OPERATIONS}/{file}", Accepted))]
    ended = {file.partition("-")[2] for file in store.folder.names(f"{name}/{EVENTS}")} if records else set()
    for record in sorted(records, key=lambda record: record.outcome.asked_at):
        if f"{record.outcome.id}.json" in ended:
            remove_operation(store, record.outcome)
        else:
            yield record


def outcome_of(store: ModelStore, outcome_id: str) -> Outcome | None:
    """Return the outcome of an open or ended operation, None for an unknown id. Raises StorageUnreachable."""
    name, _, number = outcome_id.rpartition("-")
    if not (NAME.fullmatch(name) and re.fullmatch("[0-9a-f]+", number)):
        return None
    accepted = _read(store, f"{name}/{OPERATIONS}/{outcome_id}.json", Accepted)  # before the events: it moves to them
    ended = [file for file in store.folder.names(f"{name}/{EVENTS}") if file.endswith(f"-{outcome_id}.json")]
    found = (_read(store, f"{name}/{EVENTS}/{ended[-1]}", RolloutEvent) if ended else None) or accepted
    return found and found.outcome


def _path(outcome: Outcome) -> str:
    return f"{outcome.operation.name}/{OPERATIONS}/{outcome.id}.json"


def _read(store: ModelStore, path: str, kind: type[R]) -> R | None:
    """Return a record, or None if it is missing or damaged."""
    try:
        return kind.model_validate_json(store.folder.read(path))
    except (FileNotFoundError, ValidationError):
        return None
