"""The event log: who moved which alias when, and what was refused and why. Only ever added to.

<models>/<name>/.rollout/events/<UTC time>-<operation id>.json, one small file an event, so that it works on
S3 too, where nothing can be appended to.
"""

from __future__ import annotations

from datetime import UTC, datetime

from pydantic import ValidationError

from model_store.errors import StorageUnreachable
from model_store.store import ModelStore
from serve.rollout.operations import Outcome
from serve.rollout.state import AliasState, Frozen

EVENTS = ".rollout/events"


class Event(Frozen):
    """An operation that ended, and what served before and after it."""

    at: datetime
    outcome: Outcome
    before: AliasState | None
    after: AliasState | None


def record(
    store: ModelStore, outcome: Outcome, before: AliasState | None, after: AliasState | None
) -> Event:
    """Raises StorageUnreachable, also where the model's folder is away: nothing is written in its place."""
    name = outcome.operation.name
    if not store.folder.exists(name):
        raise StorageUnreachable(f"{store.url}/{name} is away")
    event = Event(at=datetime.now(UTC), outcome=outcome, before=before, after=after)
    stamp = f"{event.at:%Y%m%dT%H%M%S%f}-{outcome.id}"
    path = f"{name}/{EVENTS}/{stamp}.json"
    store.folder.write(path, event.model_dump_json(indent=1).encode())
    return event


def events(store: ModelStore, name: str, most: int = 20) -> list[Event]:
    """The newest, newest first; a damaged one is left out."""
    files = sorted(store.folder.names(f"{name}/{EVENTS}"), reverse=True)[:most]
    return [event for file in files if (event := _read(store, name, file))]


def event_of(store: ModelStore, name: str, outcome_id: str) -> Event | None:
    """The event that ended an operation."""
    files = store.folder.names(f"{name}/{EVENTS}")
    mine = [file for file in files if file.endswith(f"-{outcome_id}.json")]
    return _read(store, name, mine[-1]) if mine else None


def _read(store: ModelStore, name: str, file: str) -> Event | None:
    try:
        return Event.model_validate_json(store.folder.read(f"{name}/{EVENTS}/{file}"))
    except (ValidationError, FileNotFoundError):
        return None
