"""Which model versions a replica holds, and which of them each alias means right now.

alias files --refresh--> load off the event loop, verify, probe --> switch the alias in one assignment
What fails to load is remembered with its reason and changes nothing. A store that cannot be read, or
lists nothing, changes nothing either: what serves goes on serving.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from model_store.detector import LoadedDetector
from model_store.errors import ModelError, ModelNotReady, ResightError
from model_store.names import ModelRef, VersionId, parse_ref
from model_store.store import ModelStore

log = structlog.get_logger("resight.serve")


@dataclass(frozen=True, slots=True)
class Resident:
    """A loaded version, as reached through an alias or by its exact name."""

    detector: LoadedDetector
    alias: str | None


class Residents:
    """Loads with `load(version)` in a thread, one load at a time."""

    def __init__(
        self, store: ModelStore, load: Callable[[VersionId], LoadedDetector], idle_versions: int
    ) -> None:
        self._store, self._load, self._idle_versions = store, load, idle_versions
        self._loaded: dict[VersionId, LoadedDetector] = {}
        self._used_s: dict[VersionId, float] = {}
        self._aliases: dict[tuple[str, str], VersionId] = {}
        self.failures: dict[str, str] = {}
        self._loading = asyncio.Lock()

    @property
    def loaded(self) -> list[VersionId]:
        return sorted(self._loaded)

    def aliases_of(self, version: VersionId) -> list[str]:
        return sorted(alias for (_, alias), active in self._aliases.items() if active == version)

    def detector(self, version: VersionId) -> LoadedDetector:
        """Raises ModelNotReady when the version was released in the meantime."""
        try:
            return self._loaded[version]
        except KeyError:
            raise ModelNotReady(f"{version} was released from this replica; ask again") from None

    async def get(self, text: str) -> Resident:
        """The version a reference means; an exact version is loaded when it is not yet here.

        Raises BadRequest, ModelNotFound, ModelNotReady.
        """
        ref = parse_ref(text)
        version = self._known(ref)
        if version is None:
            version = await asyncio.to_thread(self._store.resolve, ref)
            if ref.alias is not None:  # promoted a moment ago, or it did not load
                await self.refresh()
                version = self._known(ref)
                if version is None:
                    reason = self.failures.get(f"{ref.name}:{ref.alias}", "it is being loaded")
                    raise ModelNotReady(f"{text} cannot answer yet: {reason}")
        if version not in self._loaded:
            await self._ensure(version)
        self._used_s[version] = time.monotonic()
        return Resident(self._loaded[version], ref.alias)

    async def refresh(self) -> None:
        """Reconcile with the alias files; never raises for what the store holds."""
        try:
            wanted = await asyncio.to_thread(self._wanted)
        except ResightError as error:
            log.warning("store_unreadable", store=self._store.url, error=str(error))
            return
        for gone in self._forgotten(wanted):
            del self._aliases[gone]
            self.failures.pop(f"{gone[0]}:{gone[1]}", None)
        for name, alias, version in wanted:
            if self._aliases.get((name, alias)) == version:
                self.failures.pop(f"{name}:{alias}", None)  # moved back from one that failed
            else:
                await self._switch(name, alias, version)
        self._release_idle()

    def _wanted(self) -> list[tuple[str, str, VersionId]]:
        """What the alias files say; a damaged one is a failure of its model alone."""
        wanted: list[tuple[str, str, VersionId]] = []
        for name in self._store.names():
            try:
                aliases = self._store.aliases(name)
            except ModelError as error:
                self.failures[name] = str(error)
                continue
            self.failures.pop(name, None)
            wanted += [
                (name, alias, VersionId(name, version)) for alias, version in aliases.items()
            ]
        return wanted

    def _forgotten(self, wanted: list[tuple[str, str, VersionId]]) -> list[tuple[str, str]]:
        """Aliases taken out of a file that can be read; an empty store is a store that is away."""
        readable = {name for name, _, _ in wanted}
        there = {(name, alias) for name, alias, _ in wanted}
        return [key for key in self._aliases if key[0] in readable and key not in there]

    async def _switch(self, name: str, alias: str, version: VersionId) -> None:
        label = f"{name}:{alias}"
        try:
            await self._ensure(version)
        except Exception as error:  # whatever a model does on loading, the old one goes on
            reason = f"{version}: {error}"
            if self.failures.get(label) != reason:
                log.error("model_not_loaded", alias=label, version=str(version), error=str(error))
            self.failures[label] = reason
            return
        previous = self._aliases.get((name, alias))
        self._aliases[name, alias] = version
        self.failures.pop(label, None)
        if previous:
            self._used_s[previous] = time.monotonic()  # stays warm for an instant way back
        log.info("alias_switched", alias=label, version=str(version), previous=str(previous))

    async def _ensure(self, version: VersionId) -> None:
        async with self._loading:
            if version not in self._loaded:
                self._loaded[version] = await asyncio.to_thread(self._load, version)
                self._used_s[version] = time.monotonic()

    def _known(self, ref: ModelRef) -> VersionId | None:
        if ref.alias is not None:
            return self._aliases.get((ref.name, ref.alias))
        exact = VersionId(ref.name, ref.version or "")
        return exact if exact in self._loaded else None

    def _release_idle(self) -> None:
        """Drop the longest unused versions that no alias means, beyond `idle_versions`."""
        active = set(self._aliases.values())
        idle = sorted(set(self._loaded) - active, key=lambda version: self._used_s[version])
        for version in idle[: max(0, len(idle) - self._idle_versions)]:
            del self._loaded[version], self._used_s[version]
            log.info("model_released", version=str(version))
