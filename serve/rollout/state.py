"""What serves, per alias of a model: the version, the way back, canary, shadow and pin.

<models>/<name>/.rollout/state.json <--read_state / write_state--> ModelState

An alias that nobody has rolled out yet is taken from aliases.json as it stands. `generation` grows
with each write, so that a replica never goes back to an older state than it has.
"""

from __future__ import annotations

import time
from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from model_store.errors import ModelRefused
from model_store.names import VersionId
from model_store.store import ModelStore

STATE = ".rollout/state.json"


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Share(Frozen):
    """A version that gets part of an alias's requests."""

    version: str
    percent: float = Field(gt=0, le=100)


class AliasState(Frozen):
    """What answers for one alias."""

    active: str
    previous: str | None = None
    since: datetime | None = None
    canary: Share | None = None
    shadow: Share | None = None
    pinned: bool = False

    def versions(self) -> set[str]:
        """Everything that must be loaded for it."""
        shares = (share.version for share in (self.canary, self.shadow) if share)
        return {self.active, *shares}


class ModelState(Frozen):
    """All aliases of one model."""

    generation: int = 0
    aliases: dict[str, AliasState] = {}

    def with_alias(self, alias: str, state: AliasState | None) -> ModelState:
        """The next generation, with this alias changed, or gone."""
        aliases = {name: one for name, one in self.aliases.items() if name != alias}
        if state is not None:
            aliases[alias] = state
        return ModelState(generation=self.next_generation(), aliases=aliases)

    def next_generation(self) -> int:
        """Milliseconds of the clock, and more than this one: replicas follow also when the file was lost."""
        return max(self.generation + 1, time.time_ns() // 1_000_000)

    def versions(self, name: str) -> set[VersionId]:
        return {VersionId(name, v) for state in self.aliases.values() for v in state.versions()}


def read_state(store: ModelStore, name: str) -> ModelState:
    """Aliases that are wanted, each with what serves for it (or what is wanted, the first time).

    Raises ModelRefused when a file is damaged, StorageUnreachable.
    """
    wanted = store.aliases(name)
    known = _written(store, name)
    aliases = {alias: known.aliases.get(alias, AliasState(active=v)) for alias, v in wanted.items()}
    return ModelState(generation=known.generation, aliases=aliases)


def write_state(store: ModelStore, name: str, state: ModelState) -> None:
    """In one step: readers see the old state or the new one."""
    store.folder.write(f"{name}/{STATE}", state.model_dump_json(indent=1).encode())


def _written(store: ModelStore, name: str) -> ModelState:
    try:
        return ModelState.model_validate_json(store.folder.read(f"{name}/{STATE}"))
    except FileNotFoundError:
        return ModelState()
    except ValidationError as error:
        raise ModelRefused(
            f"{store.url}/{name}/{STATE} is damaged ({error.errors()[0]['msg']}); remove it: "
            "what serves then follows aliases.json"
        ) from error
