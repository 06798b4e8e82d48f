"""Model versions in a replica's memory: proved, loaded one at a time, leased by runs, released when idle.

ensure -> in use -> idle for `retain_s`, or more than `idle_versions` idle -> released, memory returned to the system
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import replace
from typing import Protocol

import structlog

from model_store.deployment import read_deployment
from model_store.errors import SOON_S, Conflict, ModelNotReady, ResightError
from model_store.load import Loaded, load_model, warm_up, with_measured_batch
from model_store.machine import free_memory_bytes
from model_store.names import VersionId
from model_store.store import ModelStore, digest_of
from serve.inference.os_priority import lower_thread_priority
from serve.rollout.sandbox import Proof
from serve.rollout.state import require_same_files

MEMORY_SHARE = 0.8
"""Share of the free memory that a new version may use."""
log = structlog.get_logger("resight.serve")


class Prover(Protocol):
    """Permits each load of a version into this process."""

    async def prove(self, version: VersionId) -> Proof:
        """Return the proof of a version. Raises ModelError, Overloaded."""
        ...

    def loading(self, version: VersionId) -> AbstractAsyncContextManager[None]:
        """Return the context in which the version is loaded. Entering it may raise ModelError."""
        ...


class NoProver:
    """Permits every load without a proof, for an engine without a rollout."""

    def __init__(self, store: ModelStore) -> None:
        self._store = store

    async def prove(self, version: VersionId) -> Proof:
        return Proof(0, 0.0, digest_of(await asyncio.to_thread(self._store.digests, version)))

    def loading(self, version: VersionId) -> AbstractAsyncContextManager[None]:
        return nullcontext()


class LoadedModels:
    """Loads versions with `load(version, digest of its files)`, one at a time in a thread. Use it on one event loop.

    The thread has a lower priority than live requests if `low_priority` is True.
    """

    def __init__(
        self,
        load: Callable[[VersionId, str], Loaded],
        prover: Prover,
        idle_versions: int = 2,
        retain_s: float = 600.0,
        low_priority: bool = True,
    ) -> None:
        self._load, self._prover = load, prover
        self._idle_versions, self._retain_s = idle_versions, retain_s
        self._loaded: dict[VersionId, Loaded] = {}
        self._digests: dict[VersionId, str] = {}
        self._used_s: dict[VersionId, float] = {}
        self._leases: dict[VersionId, dict[str, float]] = {}
        self._loads: dict[tuple[VersionId, str | None], asyncio.Task[None]] = {}
        self._one_load = asyncio.Lock()
        self._loader = ThreadPoolExecutor(1, "load", initializer=lower_thread_priority if low_priority else None)

    def __contains__(self, version: object) -> bool:
        return version in self._loaded

    @property
    def names(self) -> list[VersionId]:
        return sorted(self._loaded)

    def model(self, version: VersionId) -> Loaded:
        """Return a loaded version. Raises ModelNotReady if it was released."""
        try:
            return self._loaded[version]
        except KeyError:
            raise ModelNotReady(f"{version} was released from this replica; send the request again", SOON_S) from None

    def use(self, version: VersionId) -> Loaded:
        """Return a loaded version and record its use. Raises ModelNotReady if it was released."""
        self._used_s[version] = time.monotonic()
        return self.model(version)

    def holds(self, version: VersionId, digest: str | None = None) -> bool:
        """Return whether a version is loaded, and from files of this digest if one is given."""
        return version in self._loaded and digest in (None, self._digests[version])

    async def ensure(self, version: VersionId, digest: str | None = None) -> None:
        """Prove and load a version, unless it is loaded, and from files of this digest if one is given.

        Concurrent callers share one load, which continues if they are cancelled. Raises ModelError, Overloaded, and
        ModelNotReady if the proof took more memory than is available.
        """
        if self.holds(version, digest):
            self.use(version)
            return
        key = version, digest
        if key not in self._loads:
            task = self._loads[key] = asyncio.create_task(self._prove_and_load(version, digest))
            task.add_done_callback(lambda _: self._loads.pop(key))
            task.add_done_callback(lambda done: done.cancelled() or done.exception())  # all callers may be cancelled
        await asyncio.shield(self._loads[key])

    async def _prove_and_load(self, version: VersionId, digest: str | None) -> None:
        proof = await self._prover.prove(version)
        require_same_files(version, digest or proof.digest, proof.digest)
        async with self._one_load:
            if not self.holds(version, proof.digest):
                require_memory(version, proof.rss_bytes)
                async with self._prover.loading(version):
                    loop = asyncio.get_running_loop()
                    loaded = await loop.run_in_executor(self._loader, self._load, version, proof.digest)
                self._loaded[version], self._digests[version] = loaded, proof.digest
        self._used_s[version] = time.monotonic()

    def exchange(self, version: VersionId, model: Loaded) -> None:
        """Replace a loaded version by one with other settings. Waiting requests keep the old one."""
        if version in self._loaded:
            self._loaded[version] = model

    def lease(self, version: VersionId, holder: str, for_s: float) -> None:
        """Protect a version from release for `for_s` seconds; 0 ends the lease of this holder."""
        holders = self._leases.setdefault(version, {})
        if for_s > 0:
            holders[holder] = time.monotonic() + for_s
        else:
            holders.pop(holder, None)

    def holders(self, version: VersionId) -> list[str]:
        """Return the holders of unexpired leases, sorted."""
        now = time.monotonic()
        return sorted(h for h, until in self._leases.get(version, {}).items() if until > now)

    async def release(self, version: VersionId) -> bool:
        """Release a version; return False if it was not loaded. Raises Conflict if a run holds it."""
        holders = self.holders(version)
        if holders:
            raise Conflict(f"{version} is held by {', '.join(holders)}; cancel or await them first")
        if version not in self._loaded:
            return False
        del self._loaded[version], self._digests[version]
        self._used_s.pop(version, None)
        self._leases.pop(version, None)
        await asyncio.get_running_loop().run_in_executor(self._loader, _return_memory)
        log.info("model_released", version=str(version))
        return True

    async def release_idle(self, is_active: Callable[[VersionId], bool], warm: Collection[VersionId]) -> None:
        """Release idle versions: neither active nor leased.

        These are released after `retain_s` without use. If more than `idle_versions` are idle, the least recently
        used are released earlier. Those kept `warm` for a rollback stay.
        """

        def is_idle(version: VersionId) -> bool:
            return not (is_active(version) or self.holders(version))

        now = time.monotonic()
        idle = list(filter(is_idle, self._loaded))
        used_s = dict(self._used_s)
        idle.sort(key=used_s.__getitem__)
        too_many = len(idle) - self._idle_versions
        for place, version in enumerate(idle):
            expired = now - used_s[version] > self._retain_s
            # a release, a lease, a promotion or a request may have come during the releases above
            untouched = self._used_s.get(version) == used_s[version] and is_idle(version)
            if (expired or place < too_many) and version not in warm and untouched:
                await self.release(version)


def require_memory(version: VersionId, needs_bytes: int) -> None:
    """Raise ModelNotReady if a version would take more than MEMORY_SHARE of the free memory."""
    free = free_memory_bytes()
    if needs_bytes > MEMORY_SHARE * free:
        raise ModelNotReady(
            f"no memory for {version}: its proof took {needs_bytes >> 20} MiB, "
            f"{free >> 20} MiB are free here; release another version first"
        )


def _return_memory() -> None:
    """Return freed memory to the system: glibc keeps freed arenas until malloc_trim is called."""
    gc.collect()
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):
        return  # not glibc


class Loader:
    """Loads versions, and caches the measured batch size of each set of weights."""

    def __init__(self, store: ModelStore, threads: int) -> None:
        self._store, self._threads = store, threads
        self._measured: dict[tuple[object, ...], int] = {}

    def load(self, version: VersionId, digest: str = "") -> Loaded:
        """Load a version, from files of this digest if one is given. Raises ModelError."""
        started = time.perf_counter()
        model = self.tuned(self._sized(load_model(self._store, version, self._threads, digest)))
        log.info(
            "model_loaded",
            version=str(version),
            device=model.session.device,
            batch=model.batch.max,
            s=round(time.perf_counter() - started, 3),
        )
        return model

    def tuned(self, model: Loaded, store: ModelStore | None = None) -> Loaded:
        """Return the model with the batch of deployment.json, or the measured one; unchanged if the file is damaged."""
        try:
            batch = read_deployment(store or self._store, model.info.id).batch
        except ResightError as error:
            log.warning("deployment_ignored", version=str(model.info.id), error=str(error))
            return model
        if batch is None:
            size = self._measured[_measurement_key(model)]
            batch = model.config.batch.model_copy(update={"max": size})
        return replace(model, batch=batch)

    def _sized(self, model: Loaded) -> Loaded:
        """Warm up a model, and measure its batch size on this machine, once for the same weights."""
        key = _measurement_key(model)
        if key in self._measured:
            model = replace(model, batch=model.config.batch.model_copy(update={"max": self._measured[key]}))
            warm_up(model)
        else:
            model = with_measured_batch(model)
            self._measured[key] = model.batch.max
        return model


def _measurement_key(model: Loaded) -> tuple[object, ...]:
    """Return the properties that determine the best batch size on one machine."""
    config = model.config
    return model.info.weights_sha256, config.preprocess.input_px, config.batch.max
