"""State of the aliases of a model: the active version, previous ones, canary, shadow and pin.

<models>/<name>/.rollout/state.json <--read_state / update_state--> ModelState

An alias that was never rolled out has the version in aliases.json. `generation` grows with each write, so that a
replica never returns to an older state.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import datetime

from pydantic import Field, ValidationError

from model_store.errors import ModelRefused
from model_store.frozen import Frozen, wrong_fields
from model_store.names import VersionId
from model_store.store import ModelStore

STATE = ".rollout/state.json"
MAX_PREVIOUS = 20
"""Number of steps that an alias can be rolled back."""


class Share(Frozen):
    """A version that gets part of an alias's requests."""

    version: str
    percent: float = Field(gt=0, le=100)


class AliasState(Frozen):
    """State of one alias. `previous` are the versions that were active and not rolled back, newest last."""

    active: str
    previous: tuple[str, ...] = ()
    since: datetime | None = None
    canary: Share | None = None
    shadow: Share | None = None
    pinned: bool = False

    def versions(self) -> set[str]:
        """Return the versions that must be loaded."""
        shares = (share.version for share in (self.canary, self.shadow) if share)
        return {self.active, *shares}


class ModelState(Frozen):
    """State of all aliases of a model, and the digest (`ModelVersion.digest`) of each version at its rollout."""

    generation: int = 0
    aliases: dict[str, AliasState] = {}
    digests: dict[str, str] = {}

    def with_alias(self, alias: str, state: AliasState | None, digests: Mapping[str, str] | None = None) -> ModelState:
        """Return the next generation, with this alias changed, or removed if `state` is None; drop unused digests."""
        others = {name: other for name, other in self.aliases.items() if name != alias}
        aliases = others if state is None else others | {alias: state}
        named = {version for other in aliases.values() for version in (*other.versions(), *other.previous)}
        kept = {v: d for v, d in (self.digests | dict(digests or {})).items() if v in named}
        # the clock in ms, so that it grows even if the file was lost
        generation = max(self.generation + 1, time.time_ns() // 1_000_000)
        return ModelState(generation=generation, aliases=aliases, digests=kept)

    def require_unchanged(self, version: VersionId, digest: str) -> None:
        """Raise ModelRefused if the version was rolled out with other files."""
        require_same_files(version, self.digests.get(version.version, digest), digest)

    def versions(self, name: str) -> set[VersionId]:
        return {VersionId(name, v) for state in self.aliases.values() for v in state.versions()}


def require_same_files(version: VersionId, rolled_out: str, digest: str) -> None:
    """Raise ModelRefused if the digest of a version's files is not the one with which it was rolled out."""
    if digest != rolled_out:
        raise ModelRefused(
            f"the files of {version} were replaced after it was rolled out, and versions never change: "
            "add the files as another version"
        )


def read_state(store: ModelStore, name: str) -> ModelState:
    """Return the aliases in aliases.json, each with its state, or with its version there if it was never rolled out.

    Raises ModelRefused if a file is damaged, StorageUnreachable.
    """
    wanted = store.aliases(name)
    try:
        return _merged(store, name, wanted, store.folder.read(f"{name}/{STATE}"))
    except FileNotFoundError:
        return _merged(store, name, wanted, None)


def update_state(store: ModelStore, name: str, change: Callable[[ModelState], ModelState]) -> ModelState:
    """Apply `change` to the current state in the files, write the result and return it.

    Nothing is written if `change` returns its argument, or raises. Raises the errors of `read_state`, Conflict,
    StorageUnsafe.
    """
    written: list[ModelState] = []

    def changed(data: bytes | None) -> bytes | None:
        now = _merged(store, name, store.aliases(name), data)
        written[:] = [change(now)]
        return None if written[0] is now else written[0].model_dump_json(indent=1).encode()

    store.folder.update(f"{name}/{STATE}", changed)
    return written[0]


def _merged(store: ModelStore, name: str, wanted: Mapping[str, str], data: bytes | None) -> ModelState:
    try:
        state = ModelState() if data is None else ModelState.model_validate_json(data)
    except ValidationError as error:
        raise ModelRefused(
            f"{store.url}/{name}/{STATE} is damaged ({wrong_fields(error, ModelState, 'file')}); remove it: "
            "aliases.json then decides what serves"
        ) from error
    aliases = {alias: state.aliases.get(alias, AliasState(active=v)) for alias, v in wanted.items()}
    return state.model_copy(update={"aliases": aliases})
