"""The model versions in a replica's memory: loaded one at a time, leased by runs, let go when idle.

ensure -> in use -> idle for `retain_s`, or one idle version too many -> released, memory given back
"""

from __future__ import annotations

import asyncio
import ctypes
import functools
import gc
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import ParamSpec, TypeVar

import structlog

from model_store.errors import Conflict, ModelNotReady
from model_store.loaded import Loaded
from model_store.machine import free_memory_bytes
from model_store.names import VersionId
from serve.priority import give_way

MEMORY_SHARE = 0.8
"""Of what is free, that a new version may take."""
P = ParamSpec("P")
R = TypeVar("R")
log = structlog.get_logger("resight.serve")


def _nothing(_: VersionId) -> AbstractAsyncContextManager[None]:
    return nullcontext()


class ResidentVersions:
    """Loads with `load(version, digest of its files)` in a thread that gives way to live requests. Call it from one
    event loop.
    """

    def __init__(
        self,
        load: Callable[[VersionId, str], Loaded],
        idle_versions: int,
        retain_s: float,
        gives_way: bool = True,
    ) -> None:
        self._load, self._idle_versions, self._retain_s = load, idle_versions, retain_s
        self._loaded: dict[VersionId, Loaded] = {}
        self._digests: dict[VersionId, str] = {}
        self._used_s: dict[VersionId, float] = {}
        self._leases: dict[VersionId, dict[str, float]] = {}
        self._loading = asyncio.Lock()
        self._loader = ThreadPoolExecutor(1, "load", initializer=give_way if gives_way else None)

    def __contains__(self, version: object) -> bool:
        return version in self._loaded

    @property
    def names(self) -> list[VersionId]:
        return sorted(self._loaded)

    def model(self, version: VersionId) -> Loaded:
        """Raises ModelNotReady when the version was released in the meantime."""
        try:
            return self._loaded[version]
        except KeyError:
            raise ModelNotReady(f"{version} was released from this replica; ask again") from None

    def use(self, version: VersionId) -> Loaded:
        """As `model`, and it counts as used now."""
        self._used_s[version] = time.monotonic()
        return self.model(version)

    def holds(self, version: VersionId, digest: str | None = None) -> bool:
        """Return True if it is loaded, from files of this digest if one is given."""
        return version in self._loaded and digest in (None, self._digests[version])

    async def ensure(
        self,
        version: VersionId,
        needs_bytes: int = 0,
        digest: str = "",
        around: Callable[[VersionId], AbstractAsyncContextManager[None]] = _nothing,
    ) -> None:
        """Load it inside `around(version)`, unless it is held with this digest. Raises what its loading raises, and
        ModelNotReady where the memory it needs is not free.
        """
        async with self._loading:
            if not self.holds(version, digest):
                require_memory(version, needs_bytes)
                async with around(version):
                    self._loaded[version] = await self._aside(self._load, version, digest)
                self._digests[version] = digest
        self._used_s[version] = time.monotonic()

    def exchange(self, version: VersionId, model: Loaded) -> None:
        """The same version with other settings; what waits keeps the one it was asked with."""
        if version in self._loaded:
            self._loaded[version] = model

    def lease(self, version: VersionId, holder: str, for_s: float) -> None:
        """It is not released before then, or before the holder asks for 0 seconds."""
        holders = self._leases.setdefault(version, {})
        if for_s > 0:
            holders[holder] = time.monotonic() + for_s
        else:
            holders.pop(holder, None)

    def holders(self, version: VersionId) -> list[str]:
        now = time.monotonic()
        return sorted(h for h, until in self._leases.get(version, {}).items() if until > now)

    async def release(self, version: VersionId) -> bool:
        """Whether it was here. Raises Conflict when a run holds it."""
        holders = self.holders(version)
        if holders:
            raise Conflict(f"{version} is held by {', '.join(holders)}; cancel or await them first")
        if version not in self._loaded:
            return False
        del self._loaded[version], self._digests[version]
        self._used_s.pop(version, None)
        self._leases.pop(version, None)
        await self._aside(_give_memory_back)
        log.info("model_released", version=str(version))
        return True

    async def _aside(self, work: Callable[P, R], *arguments: P.args, **more: P.kwargs) -> R:
        return await asyncio.get_running_loop().run_in_executor(
            self._loader, functools.partial(work, *arguments, **more)
        )

    async def release_idle(
        self, active: Collection[VersionId], warm: Collection[VersionId]
    ) -> None:
        """Versions that no alias means: those unused for `retain_s`, and the longest unused ones beyond
        `idle_versions`, unless they are kept `warm` as the way back of a rollout.
        """
        now = time.monotonic()
        idle = [v for v in self._loaded if v not in active and not self.holders(v)]
        used_s = dict(self._used_s)
        idle.sort(key=used_s.__getitem__)
        too_many = len(idle) - self._idle_versions
        for place, version in enumerate(idle):
            expired = now - used_s[version] > self._retain_s
            goes = expired or (place < too_many and version not in warm)
            # much may have happened since: another release, a lease, a promotion, a request
            untouched = self._used_s.get(version) == used_s[version] and not self.holders(version)
            if goes and untouched:
                await self.release(version)


def require_memory(version: VersionId, needs_bytes: int) -> None:
    """Raises ModelNotReady rather than let the machine run out."""
    free = free_memory_bytes()
    if needs_bytes > MEMORY_SHARE * free:
        raise ModelNotReady(
            f"no memory for {version}: it took {needs_bytes >> 20} MiB where it was proved, "
            f"{free >> 20} MiB are free here; release another version first"
        )


def _give_memory_back() -> None:
    """The allocator keeps freed arenas for itself unless it is told (glibc's malloc_trim)."""
    gc.collect()
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):
        return  # not glibc
