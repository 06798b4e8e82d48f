"""Which version answers for each alias in this replica right now.

state files --refresh--> prove, load off the event loop, verify, probe --> switch in one assignment
the rollout  --activate--> the same, refused unless everything is loaded

What fails to load is remembered with its reason and changes nothing. A store that cannot be read, or
lists nothing, changes nothing either: what serves goes on serving.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol

import structlog

from model_store.classifier import Classifier
from model_store.detector import LoadedDetector
from model_store.errors import (
    Conflict,
    Forbidden,
    ModelError,
    ModelNotReady,
    ResightError,
    StorageError,
)
from model_store.loaded import Loaded, require_classifier, require_detector
from model_store.names import DEFAULT_ALIAS, ModelRef, VersionId, parse_ref
from model_store.store import ModelStore, digest_of
from serve.placement import Placement
from serve.resident_versions import ResidentVersions
from serve.rollout.prove import Proof
from serve.rollout.state import AliasState, ModelState, read_state
from serve.threads import Threads

log = structlog.get_logger("resight.serve")

YOUNG_S = 10.0
"""After its first request a replica looks at the state file before each: it may have been born too late
to hear of a switch, and after `promote` has returned no answer may come from the old version."""


PENDING = "it is being proved or loaded"
START_PATIENCE_S, PATIENCE_S = 60.0, 1.0
"""How long `refresh` waits for a proof and a load, at the start of a replica and later. They continue after that, and a
later `refresh` uses the loaded version."""
MAY_LOAD: ContextVar[bool] = ContextVar("may_load", default=True)
"""True if this request may load an exact version that no alias and no run needs here (`serve/access.py`)."""


@contextmanager
def loads_if(allowed: bool) -> Generator[None]:
    """Let the block load exact versions if that is `allowed`, and was allowed before."""
    token = MAY_LOAD.set(MAY_LOAD.get() and allowed)
    try:
        yield
    finally:
        MAY_LOAD.reset(token)


class Prover(Protocol):
    """Grants each load of a version into this process."""

    async def prove(self, version: VersionId) -> Proof:
        """Raises ModelError, Overloaded."""
        ...

    def loading(self, version: VersionId) -> AbstractAsyncContextManager[None]:
        """Return a context for the loading itself. It raises ModelError on entering."""
        ...


class Trusting:
    """Grant every load without a proof: for an engine without a rollout."""

    def __init__(self, store: ModelStore) -> None:
        self._store = store

    async def prove(self, version: VersionId) -> Proof:
        digests = await asyncio.to_thread(self._store.digests, version)
        return Proof(0, 0.0, digest_of(digests))

    def loading(self, version: VersionId) -> AbstractAsyncContextManager[None]:
        return nullcontext()


@dataclass(frozen=True, slots=True)
class Resident:
    """A loaded version, as reached through an alias or by its exact name."""

    model: Loaded
    alias: str | None

    @property
    def detector(self) -> LoadedDetector:
        """Raises BadRequest that names the kind, of a classifier."""
        return require_detector(self.model)

    @property
    def classifier(self) -> Classifier:
        """Raises BadRequest that names the kind, of a detector."""
        return require_classifier(self.model)


class Residents:
    """Aliases over the versions in memory. Call it from one event loop."""

    def __init__(
        self,
        store: ModelStore,
        load: Callable[[VersionId, str], Loaded],
        idle_versions: int = 2,
        retain_s: float = 600.0,
        retry_s: float = 10.0,
        placement: Placement | None = None,
        lookups: Threads | None = None,
        gives_way: bool = True,
    ) -> None:
        self._store, self._retain_s, self._retry_s = store, retain_s, retry_s
        self.placement = placement or Placement(store)
        self._lookups = lookups or Threads(1, "look-ups in the model store", 64)
        self.files = Threads(1, "readings of alias files", 64)
        """A thread that no request uses, so that following aliases waits behind none."""
        self.versions = ResidentVersions(load, idle_versions, retain_s, gives_way)
        self.prover: Prover = Trusting(store)
        self._bringing: dict[tuple[VersionId, str | None], asyncio.Task[None]] = {}
        self._states: dict[str, ModelState] = {}
        self._only: dict[str, VersionId] = {}
        self._left_s: dict[VersionId, float] = {}
        self._failed: dict[VersionId, tuple[float, str]] = {}
        self.failures: dict[str, str] = {}
        self.adopts = True
        """Whether an alias that was never rolled out is followed; not where a rollout proves it first."""
        self._patience_s = START_PATIENCE_S
        self._young_until: float | None = None
        self._refreshing = asyncio.Lock()
        self._next_refresh: asyncio.Task[bool] | None = None

    def started(self) -> None:
        """Leave new aliases to the rollout from now on, and do not wait for proofs when the store is read."""
        self.adopts, self._patience_s = False, PATIENCE_S

    @property
    def loaded(self) -> list[VersionId]:
        return self.versions.names

    def model(self, version: VersionId) -> Loaded:
        """Raises ModelNotReady when the version was released in the meantime."""
        return self.versions.model(version)

    def aliases_of(self, version: VersionId) -> list[str]:
        aliases = self._aliases(version.name)
        return sorted(a for a, state in aliases.items() if state.active == version.version)

    def shadow_of(self, name: str, alias: str | None, sample: float) -> LoadedDetector | None:
        """The detector that sees this image beside the one that answers, if one does and is loaded."""
        state = self._aliases(name).get(alias or "")
        if state is None or state.shadow is None or sample * 100 >= state.shadow.percent:
            return None
        version = VersionId(name, state.shadow.version)
        return require_detector(self.versions.model(version)) if version in self.versions else None

    async def get(self, text: str, sample: float = 1.0) -> Resident:
        """The version a reference means. An exact version that is not here is loaded, for an alias, for a run, or if
        the request may load it (MAY_LOAD).

        `sample`, 0 to 1, decides whether a canary answers. Raises BadRequest, ModelNotFound, Forbidden, ModelError,
        Overloaded.
        """
        ref = parse_ref(text)
        if ref.alias is None:
            return await self._exact(VersionId(ref.name, ref.version or ""))
        await self._grow_up(ref.name)
        version, alias = self._meant(ref, sample) or await self._late(text, ref, sample)
        return Resident(self.versions.use(version), alias) if alias else await self._exact(version)

    def only(self, ref: ModelRef) -> VersionId | None:
        """Return what a bare name means as if it were named exactly: the only version, without a `production`."""
        unset = DEFAULT_ALIAS not in self._aliases(ref.name)
        return self._only.get(ref.name) if unset and ref.alias == DEFAULT_ALIAS else None

    async def _exact(self, version: VersionId) -> Resident:
        if version not in self.versions:
            await self._lookups.run(self._store.resolve, parse_ref(str(version)))
            self._require_may_load(version)
            await self.bring(version)
        return Resident(self.versions.use(version), None)

    async def bring(self, version: VersionId, digest: str | None = None) -> None:
        """Load a version unless it is here, proved first; from files of this digest, or of the one that was rolled
        out. Concurrent callers share one load, which continues if they are cancelled.

        Raises ModelError, Overloaded.
        """
        state = self._states.get(version.name, ModelState())
        wanted = digest or state.digests.get(version.version)
        if self.versions.holds(version, wanted):
            return
        key = version, wanted
        if key not in self._bringing:
            task = self._bringing[key] = asyncio.create_task(self._bring(version, wanted))
            task.add_done_callback(functools.partial(self._brought, key))
        await asyncio.shield(self._bringing[key])

    async def _bring(self, version: VersionId, digest: str | None) -> None:
        proof = await self.prover.prove(version)
        rolled_out = {version.version: digest} if digest else {}
        ModelState(digests=rolled_out).require_unchanged(version, proof.digest)
        await self.versions.ensure(version, proof.rss_bytes, proof.digest, self.prover.loading)

    def _brought(self, key: tuple[VersionId, str | None], task: asyncio.Task[None]) -> None:
        del self._bringing[key]
        if not task.cancelled():
            task.exception()  # all callers may have been cancelled

    def _require_may_load(self, version: VersionId) -> None:
        """Raises Forbidden."""
        aliased = version in self._states.get(version.name, ModelState()).versions(version.name)
        if not (MAY_LOAD.get() or aliased or self.versions.holders(version)):
            raise Forbidden(
                f"{version} is not loaded here, and no alias or run needs it: to load it needs a token with the "
                "scope admin"
            )

    async def activate(self, name: str, state: ModelState) -> None:
        """Answer by this state from now on; what it names is loaded if it is not yet here (a replica may be younger
        than the rollout's first step). Raises ModelError, and Conflict when a newer state is known.
        """
        for version in sorted(state.versions(name)):
            await self.bring(version, state.digests.get(version.version))
        known = self._states.get(name, ModelState())
        if state.generation < known.generation:
            raise Conflict(
                f"{name}: this replica knows state {known.generation}, which is newer than {state.generation}"
            )
        self._switch(name, state)

    async def release(self, version: VersionId) -> bool:
        """Whether it was here. Raises Conflict when an alias means it or a run holds it."""
        if any(version in state.versions(name) for name, state in self._states.items()):
            raise Conflict(f"{version} serves; promote another version first")
        return await self.versions.release(version)

    async def refresh(self) -> bool:
        """Reconcile with the state files, read after this call; return False if the store could not be read.

        Calls that wait while another runs share one. Never raises for what the store holds.
        """
        if self._next_refresh is None:
            self._next_refresh = asyncio.create_task(self._refresh())
        return await asyncio.shield(self._next_refresh)

    async def _refresh(self) -> bool:
        async with self._refreshing:
            self._next_refresh = None
            try:
                found = await self.files.run(self._read_states)
            except ResightError as error:
                log.warning("store_unreadable", store=self._store.url, error=str(error))
                return False
            await asyncio.gather(*(self._follow(name, state) for name, state in found.items()))
            for name in set(self._states) - set(found):
                if self.placement.pool_of(name) != self.placement.own:
                    self._forget(name)
            await self.release_idle()
            return True

    async def release_idle(self) -> None:
        active = {v for name, state in self._states.items() for v in state.versions(name)}
        now = time.monotonic()
        self._left_s = {v: s for v, s in self._left_s.items() if now - s < self._retain_s}
        await self.versions.release_idle(active, set(self._left_s))

    def _read_states(self) -> dict[str, ModelState]:
        """What the files say; a damaged one is a failure of its model alone."""
        found: dict[str, ModelState] = {}
        names = self._store.names()
        for label in list(self.failures):
            gone = label.partition(":")[0] not in (*names, *self._states)
            if gone and names:
                del self.failures[label]
        for name in names:
            try:
                self.placement.look(name)
                if not self.placement.is_here(name):
                    continue
                state = read_state(self._store, name)
                unset = DEFAULT_ALIAS not in state.aliases
                only = self._store.only_version(name) if unset else None
            except ModelError as error:
                self.failures[name] = str(error)
                continue
            except StorageError as error:  # of this model's files; others may well be read
                log.warning("model_unreadable", model=name, error=str(error))
                if name not in self._states:
                    self.failures[name] = str(error)
                continue
            self.failures.pop(name, None)
            if only:
                self._only[name] = only
            else:
                self._only.pop(name, None)
            if state.aliases or name in self._states:
                found[name] = state
        return found

    def _forget(self, name: str) -> None:
        """It has moved to another pool: its versions become idle here."""
        self._states.pop(name, None)
        for label in [one for one in self.failures if one.partition(":")[0] == name]:
            del self.failures[label]

    async def _follow(self, name: str, state: ModelState) -> None:
        """Load what it names and switch; an alias that cannot follow stays as it was."""
        known = self._states.get(name, ModelState())
        if state.generation < known.generation:
            return
        aliases: dict[str, AliasState] = {}
        for alias, wanted in state.aliases.items():
            label = f"{name}:{alias}"
            if wanted.since is None and not self.adopts:
                if alias in known.aliases:
                    aliases[alias] = known.aliases[alias]
                continue
            reason = await self._loadable(name, wanted, state.digests)
            if reason is None:
                self.failures.pop(label, None)
                aliases[alias] = wanted
                continue
            if self.failures.get(label) != reason:
                log.error("model_not_loaded", alias=label, error=reason)
            self.failures[label] = reason
            if alias in known.aliases:
                aliases[alias] = known.aliases[alias]
        for gone in set(known.aliases) - set(state.aliases):
            self.failures.pop(f"{name}:{gone}", None)
        if self._states.get(name, ModelState()).generation <= state.generation:
            self._switch(name, state.model_copy(update={"aliases": aliases}))

    async def _loadable(
        self, name: str, state: AliasState, digests: Mapping[str, str]
    ) -> str | None:
        """None once all of it is loaded, or why not; whatever a model does, the old one goes on."""
        for version in sorted(VersionId(name, v) for v in state.versions()):
            failed_s, reason = self._failed.get(version, (float("-inf"), ""))
            if time.monotonic() - failed_s < self._retry_s:
                return reason
            try:
                bringing = self.bring(version, digests.get(version.version))
                await asyncio.wait_for(bringing, self._patience_s)
                self._failed.pop(version, None)
            except TimeoutError:
                return f"{version}: {PENDING}"
            except Exception as error:
                self._failed[version] = (time.monotonic(), f"{version}: {error}")
                return f"{version}: {error}"
        return None

    def _switch(self, name: str, state: ModelState) -> None:
        known = self._states.get(name, ModelState())
        if state.generation < known.generation or state == known:
            return
        self._states[name] = state
        left = known.versions(name) - state.versions(name)
        self._left_s |= dict.fromkeys(left, time.monotonic())  # warm: the way back is instant
        for alias, now in state.aliases.items():
            before = known.aliases.get(alias)
            if before is None or before.active != now.active:
                previous = before.active if before else None
                log.info(
                    "alias_switched", alias=f"{name}:{alias}", version=now.active, previous=previous
                )

    def _meant(self, ref: ModelRef, sample: float) -> tuple[VersionId, str | None] | None:
        """Return the version that answers, and its alias; no alias for the only version of a model."""
        state = self._aliases(ref.name).get(ref.alias or "")
        if state is None:
            only = self.only(ref)
            return (only, None) if only else None
        if state.canary and sample * 100 < state.canary.percent:
            canary = VersionId(ref.name, state.canary.version)
            if canary in self.versions:
                return canary, ref.alias
        return VersionId(ref.name, state.active), ref.alias

    async def _late(self, text: str, ref: ModelRef, sample: float) -> tuple[VersionId, str | None]:
        """Look at the store for a name that this replica does not know: new a moment ago, or it did not load."""
        await self._lookups.run(self._store.resolve, ref)
        await self.refresh()
        meant = self._meant(ref, sample)
        if meant is None:
            reason = self.failures.get(
                f"{ref.name}:{ref.alias}",
                f"it is being proved, or was refused: see GET /v1/models/{ref.name}",
            )
            raise ModelNotReady(f"{text} cannot answer yet: {reason}")
        return meant

    async def _grow_up(self, name: str) -> None:
        now = time.monotonic()
        if self._young_until is None:
            self._young_until = now + YOUNG_S
        if now > self._young_until:
            return
        try:
            state = await asyncio.to_thread(read_state, self._store, name)
        except ResightError:
            return  # the store is away: what serves goes on serving
        if state.generation > self._states.get(name, ModelState()).generation:
            await self.refresh()

    def _aliases(self, name: str) -> dict[str, AliasState]:
        return self._states.get(name, ModelState()).aliases
