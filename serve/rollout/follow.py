"""What another hand has changed: aliases.json says one version, another one serves.

due() -> operations that bring the two together; one that was refused is tried again when the version's
files or the alias change, and once a minute. Models do not hinder each other.
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


class Follower:
    """Remembers what was refused, by (model, alias)."""

    def __init__(self, store: ModelStore) -> None:
        self._store = store
        self._refused: dict[Place, tuple[str, float, str]] = {}

    def due(self) -> list[Operation]:
        """Raises StorageUnreachable when the models cannot be listed."""
        found: list[Operation] = []
        for name in self._store.names():
            with contextlib.suppress(
                ResightError
            ):  # a file that cannot be read is said by the replicas
                found += self._due(name)
        return found

    def is_news(self, outcome: Outcome) -> bool:
        """False for the refusal that the last try to follow ended with too: of the same version and files, in
        the same words. To be asked before `ended`.
        """
        operation = outcome.operation
        if outcome.state != "refused" or operation.kind != "follow":
            return True
        mark, _, why = self._refused.get((operation.name, operation.alias), ("", 0.0, ""))
        return (mark, why) != (self._mark(operation.name, str(operation.version)), outcome.detail)

    def ended(self, outcome: Outcome) -> None:
        operation = outcome.operation
        place = (operation.name, operation.alias)
        if outcome.state != "refused":
            self._refused.pop(place, None)
        elif operation.kind == "follow":
            mark = self._mark(operation.name, str(operation.version))
            self._refused[place] = (mark, time.monotonic(), outcome.detail)

    @property
    def refused(self) -> int:
        """Aliases that do not follow their file."""
        return len(self._refused)

    def failures(self, name: str) -> dict[str, str]:
        """Alias to why it does not follow its file."""
        mine = {place[1]: why for place, (_, _, why) in self._refused.items() if place[0] == name}
        return dict(sorted(mine.items()))

    def _due(self, name: str) -> list[Operation]:
        """Raises ModelRefused when a file is damaged, StorageUnreachable."""
        wanted = self._store.aliases(name)
        serving = read_state(self._store, name).aliases
        found: list[Operation] = []
        for alias, version in wanted.items():
            state = serving.get(alias)
            if state is None:  # the alias went between the two looks
                continue
            if state.since is not None and state.active == version:
                self._refused.pop((name, alias), None)
            elif not self._waits(name, alias, version):
                operation = Operation(kind="follow", name=name, alias=alias, version=version)
                found.append(operation)
        return found

    def _waits(self, name: str, alias: str, version: str) -> bool:
        mark, at_s, _ = self._refused.get((name, alias), ("", 0.0, ""))
        return mark == self._mark(name, version) and time.monotonic() - at_s < RETRY_S

    def _mark(self, name: str, version: str) -> str:
        """Changes with the version, and with its files as READY lists them. Never raises."""
        wanted = VersionId(name, version)
        try:
            ready = self._store.folder.read(f"{name}/{version}/{READY}")
        except (FileNotFoundError, StorageUnreachable):
            ready = b"not READY"
        return f"{wanted} {sha256_hex(ready)}"
