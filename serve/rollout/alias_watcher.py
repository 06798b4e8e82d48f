"""Follow aliases.json: find aliases that name another version than the one that serves.

due() -> operations that make the alias serve the version in aliases.json

A refused operation is due again when the version's files or the alias change, and once a minute. Errors of one model
do not affect others.
"""

from __future__ import annotations

import contextlib
import time

from model_store.errors import ResightError, StorageUnreachable
from model_store.inference_key import sha256_hex
from model_store.names import VersionId
from model_store.store import READY, ModelStore
from serve.rollout.operations import Operation, Outcome
from serve.rollout.state import read_state

RETRY_S = 60.0
Place = tuple[str, str]


class AliasWatcher:
    """Finds due operations, and records refusals by (model, alias).

    `due` and `note` read the store: call them in threads.
    """

    def __init__(self, store: ModelStore) -> None:
        self._store = store
        self._refused: dict[Place, tuple[str, float, str]] = {}

    def due(self) -> list[Operation]:
        """Return the due operations of all models. Raises StorageUnreachable if the models cannot be listed."""
        operations: list[Operation] = []
        for name in self._store.names():
            with contextlib.suppress(ResightError):  # replicas report files that cannot be read
                operations += self._due(name)
        return operations

    def note(self, outcome: Outcome) -> bool:
        """Record an outcome; return False if the last attempt to follow had the same version, files and refusal."""
        operation = outcome.operation
        place = (operation.name, operation.alias)
        if outcome.state != "refused":
            self._refused.pop(place, None)
        if outcome.state != "refused" or operation.kind != "follow":
            return True
        mark = self._mark(operation.name, str(operation.version))
        last_mark, _, last = self._refused.get(place, ("", 0.0, ""))
        self._refused[place] = (mark, time.monotonic(), outcome.detail)
        return (last_mark, last) != (mark, outcome.detail)

    @property
    def refused(self) -> int:
        """Number of aliases that do not follow aliases.json."""
        return len(self._refused)

    def failures(self, name: str) -> dict[str, str]:
        """Return alias to the reason why it does not follow aliases.json."""
        refused = list(self._refused.items())  # a copy: `due` may remove some now
        details = {p[1]: detail for p, (_, _, detail) in refused if p[0] == name}
        return dict(sorted(details.items()))

    def _due(self, name: str) -> list[Operation]:
        """Return the due operations of a model. Raises ModelRefused if a file is damaged, StorageUnreachable."""
        wanted = self._store.aliases(name)
        serving = read_state(self._store, name).aliases
        operations: list[Operation] = []
        for alias, version in wanted.items():
            state = serving.get(alias)
            if state is None:  # the alias was removed between the two reads
                continue
            if state.since is not None and state.active == version:
                self._refused.pop((name, alias), None)
            elif not self._retries_later(name, alias, version):
                operation = Operation(kind="follow", name=name, alias=alias, version=version)
                operations.append(operation)
        return operations

    def _retries_later(self, name: str, alias: str, version: str) -> bool:
        mark, at_s, _ = self._refused.get((name, alias), ("", 0.0, ""))
        return mark == self._mark(name, version) and time.monotonic() - at_s < RETRY_S

    def _mark(self, name: str, version: str) -> str:
        """Return a text that changes with the version, and with its files as READY lists them. Never raises."""
        wanted = VersionId(name, version)
        try:
            ready = self._store.folder.read(f"{name}/{version}/{READY}")
        except (FileNotFoundError, StorageUnreachable):
            ready = b"not READY"
        return f"{wanted} {sha256_hex(ready)}"
