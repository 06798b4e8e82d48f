"""A rollout where no cluster runs: proved in this process, written to the store, read at the next start."""

from __future__ import annotations

import time

from model_store.errors import ResightError
from model_store.names import VersionId
from model_store.store import ModelStore
from serve.rollout.events import record
from serve.rollout.operations import Operation, Outcome, asked
from serve.rollout.prove import prove
from serve.rollout.state import ModelState, read_state
from serve.rollout.steps import Rollout


class NoReplicas:
    """None to load in and none to tell."""

    def holds(self, version: VersionId, digest: str) -> bool:
        return False

    def ensure(self, version: VersionId, digest: str) -> None:
        return None

    def activate(self, name: str, state: ModelState) -> None:
        return None

    def release(self, version: VersionId) -> None:
        return None


def apply_offline(store: ModelStore, operation: Operation) -> Outcome:
    """Recorded in the event log, refused ones too. Raises ResightError when it was refused."""
    started = time.perf_counter()
    outcome = asked(operation)
    before = read_state(store, operation.name).aliases.get(operation.alias)
    rollout = Rollout(store, NoReplicas(), lambda version: prove(store.url, version, threads=1))
    try:
        detail = rollout.apply(rollout.begin(operation))
    except ResightError as error:
        change = {"state": "refused", "detail": str(error), "error": type(error).__name__}
        record(store, outcome.model_copy(update=change), before, before)
        raise
    seconds = round(time.perf_counter() - started, 3)
    done = outcome.model_copy(update={"state": "done", "detail": detail, "seconds": seconds})
    record(store, done, before, read_state(store, operation.name).aliases.get(operation.alias))
    return done
