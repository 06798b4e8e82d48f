"""What serves, per alias of a model: the version, the way back, canary, shadow and pin.

<models>/<name>/.rollout/state.json <--read_state / update_state--> ModelState

An alias that nobody has rolled out yet is taken from aliases.json as it stands. `generation` grows
with each write, so that a replica never goes back to an older state than it has.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from model_store.errors import ModelRefused
from model_store.names import VersionId
from model_store.said import wrong_fields
from model_store.store import ModelStore

STATE = ".rollout/state.json"
MAX_PREVIOUS = 20
"""Steps that an alias can be rolled back."""


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Share(Frozen):
    """A version that gets part of an alias's requests."""

    version: str
    percent: float = Field(gt=0, le=100)


class AliasState(Frozen):
    """What answers for one alias. `previous`: what answered before and was not rolled back, the newest last."""

    active: str
    previous: tuple[str, ...] = ()
    since: datetime | None = None
    canary: Share | None = None
    shadow: Share | None = None
    pinned: bool = False

    def versions(self) -> set[str]:
        """Everything that must be loaded for it."""
        shares = (share.version for share in (self.canary, self.shadow) if share)
        return {self.active, *shares}

    def named(self) -> set[str]:
        """Everything that must be loaded for it, and the way back."""
        return self.versions() | set(self.previous)


class ModelState(Frozen):
    """All aliases of one model, and the digest (`ModelVersion.digest`) of each version as it was rolled out."""

    generation: int = 0
    aliases: dict[str, AliasState] = {}
    digests: dict[str, str] = {}

    def with_alias(
        self, alias: str, state: AliasState | None, digests: Mapping[str, str] | None = None
    ) -> ModelState:
        """The next generation, with this alias changed, or gone. Digests of versions that no alias names any more
        are left out.
        """
        aliases = {name: one for name, one in self.aliases.items() if name != alias}
        if state is not None:
            aliases[alias] = state
        named = {version for one in aliases.values() for version in one.named()}
        kept = {v: d for v, d in (self.digests | dict(digests or {})).items() if v in named}
        return ModelState(generation=self.next_generation(), aliases=aliases, digests=kept)

    def require_unchanged(self, version: VersionId, digest: str) -> None:
        """Raises ModelRefused if the version was rolled out with other files."""
        if self.digests.get(version.version, digest) != digest:
            raise ModelRefused(
                f"the files of {version} were replaced after it was rolled out, and versions never change: "
                "add them as another version"
            )

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
    try:
        return _merged(store, name, wanted, store.folder.read(f"{name}/{STATE}"))
    except FileNotFoundError:
        return _merged(store, name, wanted, None)


def update_state(
    store: ModelStore, name: str, change: Callable[[ModelState], ModelState]
) -> ModelState:
    """Write `change` of the state in the files at that moment, and return it. Nothing is written if it returns its
    argument, or raises. Raises as `read_state`, Conflict, StorageUnsafe.
    """
    written: list[ModelState] = []

    def changed(data: bytes | None) -> bytes | None:
        now = _merged(store, name, store.aliases(name), data)
        written[:] = [change(now)]
        return None if written[0] is now else written[0].model_dump_json(indent=1).encode()

    store.folder.update(f"{name}/{STATE}", changed)
    return written[0]


def _merged(
    store: ModelStore, name: str, wanted: Mapping[str, str], data: bytes | None
) -> ModelState:
    try:
        known = ModelState() if data is None else ModelState.model_validate_json(data)
    except ValidationError as error:
        raise ModelRefused(
            f"{store.url}/{name}/{STATE} is damaged ({wrong_fields(error, ModelState, 'file')}); remove it: "
            "what serves then follows aliases.json"
        ) from error
    aliases = {alias: known.aliases.get(alias, AliasState(active=v)) for alias, v in wanted.items()}
    return known.model_copy(update={"aliases": aliases})
