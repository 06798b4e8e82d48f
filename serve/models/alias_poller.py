"""The alias table of a replica, and how it is kept current.

(ModelRef, sample, loaded versions) --AliasTable.resolve--> (version, alias), or None if no state has the alias
state files --refresh--> prove, load off the event loop, verify, probe --> switch in one assignment
the rollout  --activate--> the same, rejected unless the version of the operation is loaded

A version that fails to load is recorded with its reason, and its alias keeps the version that it has; without a canary
or shadow that fails, the active version answers. Nothing changes either if the store cannot be read or lists no model.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import structlog

from model_store.errors import (
    SOON_S,
    Conflict,
    ModelError,
    ModelNotReady,
    Overloaded,
    ResightError,
    StorageError,
    StorageUnreachable,
)
from model_store.listed_store import ListedStore
from model_store.load import Loaded
from model_store.names import DEFAULT_ALIAS, ModelRef, VersionId
from serve.inference.admission import Threads
from serve.models.loaded_models import LoadedModels
from serve.models.pools import PENDING, Placement
from serve.rollout.state import AliasState, ModelState, read_state

log = structlog.get_logger("resight.serve")

START_PATIENCE_S, PATIENCE_S = 60.0, 1.0
"""Maximum wait of `refresh`: for all proofs and loads of a start or without a rollout, and for each one otherwise.

They continue after that, and a later `refresh` uses the loaded version.
"""
ROOM_S = 1.0
"""Time after which a start requests a proof again that found too many running."""


INITIAL = ModelState()


@dataclass(frozen=True, slots=True)
class AliasTable:
    """The state of each model in this replica, and the only version of each model without the alias `production`."""

    states: Mapping[str, ModelState] = field(default_factory=dict[str, ModelState])
    only_versions: Mapping[str, VersionId] = field(default_factory=dict[str, VersionId])

    def resolve(
        self, ref: ModelRef, sample: float, loaded: Container[VersionId]
    ) -> tuple[VersionId, str | None] | None:
        """Return the version that answers and its alias, which is None for the only version of a model.

        `sample`, 0 to 1, decides whether a canary answers; it must be loaded.
        """
        state = self.aliases(ref.name).get(ref.alias or "")
        if state is None:
            only = self.only_version(ref)
            return (only, None) if only else None
        if state.canary and sample * 100 < state.canary.percent:
            canary = VersionId(ref.name, state.canary.version)
            if canary in loaded:
                return canary, ref.alias
        return VersionId(ref.name, state.active), ref.alias

    def shadow(self, name: str, alias: str | None, sample: float) -> VersionId | None:
        """Return the version that also gets this image, or None; `sample`, 0 to 1, is compared with its share."""
        state = self.aliases(name).get(alias or "")
        if state is None or state.shadow is None or sample * 100 >= state.shadow.percent:
            return None
        return VersionId(name, state.shadow.version)

    def only_version(self, ref: ModelRef) -> VersionId | None:
        """Return the only version of a model without the alias `production`, for a reference by its bare name."""
        unset = DEFAULT_ALIAS not in self.aliases(ref.name)
        return self.only_versions.get(ref.name) if unset and ref.alias == DEFAULT_ALIAS else None

    def aliases(self, name: str) -> Mapping[str, AliasState]:
        return self.state(name).aliases

    def aliases_of(self, version: VersionId) -> list[str]:
        """Return the aliases for which a version is active, sorted."""
        return sorted(a for a, state in self.aliases(version.name).items() if state.active == version.version)

    def state(self, name: str) -> ModelState:
        """Return the state of a model; the initial one if it has none here."""
        return self.states.get(name, INITIAL)

    def digest(self, version: VersionId) -> str | None:
        """Return the digest with which a version was rolled out, or None."""
        return self.state(version.name).digests.get(version.version)

    def needs(self, version: VersionId) -> bool:
        return version in self.state(version.name).versions(version.name)


class StoreReading(NamedTuple):
    """The state and the only version, if any, of each readable model of this pool, and the errors of others by name."""

    names: list[str]
    states: dict[str, ModelState]
    only_versions: dict[str, VersionId | None]
    errors: dict[str, ResightError]


class AliasPoller:
    """Reads the alias files every `poll_s`; `errors` has why models, or versions of an alias `name:alias`, fail.

    With `has_rollout`, aliases that were never rolled out are adopted only until `start` has returned; after that the
    rollout proves their versions first. `tune` applies deployment.json to a model. Use it on one event loop.
    """

    def __init__(
        self,
        store: ListedStore,
        models: LoadedModels,
        placement: Placement,
        tune: Callable[[Loaded], Loaded],
        poll_s: float = 2.0,
        retain_s: float = 600.0,
        retry_s: float = 10.0,
        has_rollout: bool = False,
    ) -> None:
        self.table = AliasTable()
        self.errors: dict[str, ResightError] = {}
        self._store, self._models, self._placement, self._tune = store, models, placement, tune
        self._poll_s, self._retain_s, self._retry_s = poll_s, retain_s, retry_s
        self._has_rollout, self._follows_rollout = has_rollout, False
        # a thread that no request uses, so that reading alias files never waits for a request
        self._files = Threads(1, "readings of alias files", max_calls=sys.maxsize)  # all models may wait
        self._start_ends_s = 0.0
        self._left_s: dict[VersionId, float] = {}
        self._failed: dict[VersionId, tuple[float, str, ModelNotReady]] = {}
        self._refreshing = asyncio.Lock()
        self._next_refresh: asyncio.Task[bool] | None = None
        self._polling: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Load every aliased version, then follow the files in the background.

        Raises StorageUnreachable: a replica that cannot read the store must not receive traffic.
        """
        if not await self.refresh():
            raise StorageUnreachable(f"the model store {self._store.url} cannot be read; see the log")
        self._follows_rollout = self._has_rollout
        self._polling = asyncio.create_task(self._poll())

    def stop(self) -> None:
        if self._polling:
            self._polling.cancel()

    async def refresh(self) -> bool:
        """Apply the state files, read after this call; return False if the store could not be read.

        Calls that arrive while another runs share one. Content of the store never raises.
        """
        if self._next_refresh is None:
            self._next_refresh = asyncio.create_task(self._refresh())
        return await asyncio.shield(self._next_refresh)

    async def activate(self, name: str, state: ModelState, version: str | None = None) -> None:
        """Load `version`, which a young replica has not loaded before, and answer by the state from now on.

        An alias with another version that fails to load is unchanged. Raises ModelError if `version` fails, or Conflict
        if this replica already has a newer state.
        """
        if version is not None:
            await self.ensure(VersionId(name, version), state.digests.get(version))
        new = await self._loaded(name, state)
        current = self.table.state(name)
        if state.generation < current.generation:
            raise Conflict(
                f"{name}: this replica has state {current.generation}, which is newer than {state.generation}"
            )
        self._switch(name, new)

    async def ensure(self, version: VersionId, digest: str | None = None) -> None:
        """Prove and load a version, from files of this digest or of its rollout. Raises ModelError, Overloaded."""
        await self._models.ensure(version, digest or self.table.digest(version))

    async def release(self, version: VersionId) -> bool:
        """Release a version; return False if it was not loaded. Raises Conflict if an alias or a run needs it."""
        if self.table.needs(version):
            raise Conflict(f"{version} serves; promote another version first")
        return await self._models.release(version)

    async def release_idle(self) -> None:
        """Release the versions that no alias or run needs, except those kept for a rollback."""
        now = time.monotonic()
        self._left_s = {v: s for v, s in self._left_s.items() if now - s < self._retain_s}
        await self._models.release_idle(lambda version: self.table.needs(version), set(self._left_s))

    async def retune(self) -> None:
        """Apply the current deployment.json to the loaded versions."""
        for version in self._models.names:
            if version in self._models:  # not released since the list was made
                current = self._models.model(version)
                tuned = await self._files.run(self._tune, current)
                if tuned.batch != current.batch:
                    self._models.exchange(version, tuned)
                    log.info("retuned", version=str(version), **tuned.batch.model_dump())

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(self._poll_s)
            try:
                await self.refresh()
                await self.retune()
            except Exception:  # try again at the next interval
                log.exception("poll_failed")

    async def _refresh(self) -> bool:
        async with self._refreshing:
            self._next_refresh = None
            try:
                reading = await self._files.run(self._read)
            except ResightError as error:
                log.warning("store_unreadable", store=self._store.url, error=str(error))
                return False
            self._note(reading)
            self._start_ends_s = time.monotonic() + START_PATIENCE_S
            aliased = (n for n, s in reading.states.items() if s.aliases or n in self.table.states)
            await asyncio.gather(*(self._follow(name, reading.states[name]) for name in aliased))
            for name in set(self.table.states) - set(reading.states):
                if self._placement.pool_of(name) != self._placement.own:  # its versions become idle here
                    states = {n: s for n, s in self.table.states.items() if n != name}
                    self.table = replace(self.table, states=states)
            await self.release_idle()
            return True

    def _read(self) -> StoreReading:
        """Read the states of all models. A damaged file is a failure of its model only."""
        self._store.list_again()
        reading = StoreReading(self._store.names(), {}, {}, {})
        for name in reading.names:
            try:
                self._placement.read(name)
                if not self._placement.serves(name):
                    continue
                state = read_state(self._store, name)
                unset = DEFAULT_ALIAS not in state.aliases
                reading.only_versions[name] = self._store.only_version(name) if unset else None
                reading.states[name] = state
            except ModelError as error:
                reading.errors[name] = error
            except StorageError as error:  # files of other models may be readable
                log.warning("model_unreadable", model=name, error=str(error))
                if name not in self.table.states:
                    reading.errors[name] = error
        return reading

    def _note(self, reading: StoreReading) -> None:
        """Record the errors and the only versions; drop those of models and aliases that were removed or moved."""
        existing = {*reading.names, *self.table.states}
        for label in list(self.errors):
            name, _, alias = label.partition(":")
            is_elsewhere = self._placement.pool_of(name) != self._placement.own
            is_removed = bool(reading.names) and name not in existing
            if is_elsewhere or is_removed or (name in reading.states and alias not in reading.states[name].aliases):
                del self.errors[label]
        self.errors |= reading.errors
        only = {**self.table.only_versions, **reading.only_versions}
        self.table = replace(self.table, only_versions={name: version for name, version in only.items() if version})

    async def _follow(self, name: str, state: ModelState) -> None:
        """Load the versions of a state and switch to it; an alias with a version that fails to load is unchanged."""
        current = self.table.state(name)
        if state.generation < current.generation:
            return
        new = await self._loaded(name, state, only_rolled_out=self._follows_rollout)
        if self.table.state(name).generation <= state.generation:
            self._switch(name, new)

    async def _loaded(self, name: str, state: ModelState, only_rolled_out: bool = False) -> ModelState:
        """Load the versions of a state; return it with each alias of which the active one fails to load unchanged."""
        aliases: dict[str, AliasState] = {}
        for alias, target in state.aliases.items():
            skipped = only_rolled_out and target.since is None
            if not skipped and await self._can_follow(name, alias, target, state.digests):
                aliases[alias] = target
        unchanged = {alias: now for alias, now in self.table.aliases(name).items() if alias in state.aliases}
        return state.model_copy(update={"aliases": unchanged | aliases})

    async def _can_follow(self, name: str, alias: str, target: AliasState, digests: Mapping[str, str]) -> bool:
        """Load the versions of an alias and record the error of one that fails; return False if it is the active one.

        Never raises.
        """
        label, failed = f"{name}:{alias}", await self._load(name, target, digests)
        before = self.errors.pop(label, None)
        if failed:
            self.errors[label] = error = next(iter(failed.values()))
            if str(before) != str(error):
                write = log.info if PENDING in str(error) else log.error
                write("model_not_loaded", alias=label, error=str(error))
        return target.active not in failed

    async def _load(self, name: str, state: AliasState, digests: Mapping[str, str]) -> dict[str, ModelNotReady]:
        """Load the versions of an alias, the active one first; return the errors of those that fail to load."""
        failed: dict[str, ModelNotReady] = {}
        for version in sorted(state.versions(), key=lambda version: (version != state.active, version)):
            if error := await self._load_one(VersionId(name, version), digests.get(version)):
                failed[version] = error
                if version == state.active:
                    break
        return failed

    async def _load_one(self, version: VersionId, digest: str | None) -> ModelNotReady | None:
        """Load a version; return None, or why it failed, now or less than `retry_s` ago."""
        mark = "" if version in self._models else await self._files.run(self._store.mark, version)
        at_s, failed_mark, failure = self._failed.get(version, (0.0, "", None))
        if failure and failed_mark == mark and time.monotonic() - at_s < self._retry_s:
            return failure
        try:
            await self._ensure_in_time(version, digest)
            self._failed.pop(version, None)
        except TimeoutError:
            return ModelNotReady(f"{version}: {PENDING}", SOON_S)
        except Exception as error:
            reason = ModelNotReady(f"{version}: {error}", getattr(error, "retry_after_s", None))
            self._failed[version] = (time.monotonic(), mark, reason)
            return reason
        return None

    async def _ensure_in_time(self, version: VersionId, digest: str | None) -> None:
        """Prove and load a version; a start waits for room among the proofs. Raises TimeoutError, and as `ensure`."""
        ends_s = time.monotonic() + PATIENCE_S
        if not self._follows_rollout:
            ends_s = max(ends_s, self._start_ends_s)
        while True:
            try:
                return await asyncio.wait_for(self.ensure(version, digest), ends_s - time.monotonic())
            except Overloaded:
                if self._follows_rollout:
                    raise
            await asyncio.sleep(ROOM_S)

    def _switch(self, name: str, state: ModelState) -> None:
        current = self.table.state(name)
        if state.generation < current.generation or state == current:
            return
        self.table = replace(self.table, states={**self.table.states, name: state})
        left = current.versions(name) - state.versions(name)
        # kept loaded for a while, so that a rollback is immediate
        self._left_s |= dict.fromkeys(left, time.monotonic())
        for alias, now in state.aliases.items():
            before = current.aliases.get(alias)
            previous = before and before.active
            if previous != now.active:
                log.info("alias_switched", alias=f"{name}:{alias}", version=now.active, previous=previous)
