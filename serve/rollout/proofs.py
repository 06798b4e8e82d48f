"""Proofs of versions on this cluster's hardware: made once for the same files, shared, bounded, kept in its home.

of(version) -> Proof            an existing proof, or a new one; raises the reason why it failed
loading(version, holder)        a process begins to load the version
loaded(version, holder)         the load has ended, and the process still runs
ended(holder)                   the process ends on request, also during loads
forget_loads(folder)            all processes have ended on request

If a load ends its process, the version is proved again; after MAX_DEATHS such loads it is refused for DEADLY_S.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import platform
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import structlog
from pydantic import ValidationError

from model_store.errors import SOON_S, ModelError, ModelNotReady, ModelRefused, Overloaded, ResightError, StorageError
from model_store.frozen import Frozen
from model_store.inference_key import CROP_NUMERICS, NUMERICS_VERSION, canonical_json, sha256_hex
from model_store.libraries import library_versions
from model_store.machine import cpu_name
from model_store.names import VersionId
from model_store.storage import Folder
from model_store.store import ModelStore
from serve.rollout.sandbox import Proof
from serve.settings import Pool

MAX_PROOFS = 16
"""Maximum proofs, running or waiting; one runs per model, so that a version that hangs delays only its own model."""
REFUSED_S = 60.0
"""Time for which repeated requests get the same refusal, unless a file of the version is written before."""
DEADLY_S = 600.0
"""Time for which a version that has ended MAX_DEATHS processes is not loaded."""
MAX_DEATHS = 3
log = structlog.get_logger("resight.rollout")


class ProofRecord(Frozen):
    """Record of one version's files on one kind of hardware."""

    version: str
    proof: Proof | None = None
    loading: tuple[str, ...] = ()
    deaths: int = 0
    refused_until: float = 0.0


class Proofs:
    """All proofs of a cluster; use it on one event loop.

    `run(version, digest)` proves in a separate process, `pool_of(name)` returns the hardware of a model, and
    `is_alive(holder)` is False once a process that loads has ended.
    """

    def __init__(
        self,
        store: ModelStore,
        folder: Folder,
        run: Callable[[VersionId, str], Proof],
        pool_of: Callable[[str], Pool],
        is_alive: Callable[[str], bool],
    ) -> None:
        self._store, self._folder = store, folder
        self._run, self._pool_of, self._is_alive = run, pool_of, is_alive
        self._records: dict[str, ProofRecord] = {}
        self._refused: dict[str, tuple[float, str, ModelError]] = {}
        self._ended: set[str] = set()
        self._running: dict[str, asyncio.Task[Proof]] = {}
        self._models: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._writing = asyncio.Lock()
        self._lanes = ThreadPoolExecutor(MAX_PROOFS, "proof")

    async def of(self, version: VersionId, again: bool = False) -> Proof:
        """Return the proof of the files in the store; make it if there is none, also if the caller is cancelled.

        `again` proves files that were refused recently. Raises ModelError, Overloaded, StorageUnreachable.
        """
        key, digest = await self._current_key(version)
        record = self._records[key]
        if record.proof is not None:
            return record.proof
        if not again:
            self._require_not_refused(key, version, await asyncio.to_thread(self._store.mark, version))
        if key not in self._running:
            if len(self._running) >= MAX_PROOFS:
                raise Overloaded(f"{MAX_PROOFS} versions are being proved", REFUSED_S)
            task = asyncio.create_task(self._prove(key, digest, version))
            self._running[key] = task
            task.add_done_callback(lambda _: self._running.pop(key))
            task.add_done_callback(lambda done: done.cancelled() or done.exception())  # all callers may be cancelled
        return await asyncio.shield(self._running[key])

    async def loading(self, version: VersionId, holder: str) -> None:
        """Record a load before it begins. Raises ModelError, ModelNotReady if the version must be proved again."""
        key, _ = await self._current_key(version)
        if self._records[key].proof is None or holder in self._ended:
            raise ModelNotReady(f"{version} must be proved again; repeat the request", SOON_S)
        await self._keep(key, loading=(*self._records[key].loading, holder))

    async def loaded(self, version: VersionId, holder: str) -> None:
        """Record the end of a load, with or without an error, that the process survived."""
        key, _ = await self._current_key(version)
        left = tuple(other for other in self._records[key].loading if other != holder)
        await self._keep(key, loading=left, deaths=0)

    async def ended(self, holder: str) -> None:
        """Record that a process ends on request: its loads do not count as deaths, and it begins no more."""
        self._ended.add(holder)
        for key in [key for key, record in self._records.items() if holder in record.loading]:
            left = tuple(other for other in self._records[key].loading if other != holder)
            await self._keep(key, loading=left)

    def _require_not_refused(self, key: str, version: VersionId, mark: str) -> None:
        """Raise ModelRefused after too many deaths, or the error of a recent refusal of files with this `mark`."""
        record = self._records[key]
        left_s = record.refused_until - time.time()
        if left_s > 0:
            raise ModelRefused(
                f"{version} has ended {record.deaths} processes that loaded it; it is tried again in {left_s:.0f} s, "
                "when its files change, or when it is promoted again"
            )
        until_s, refused_mark, error = self._refused.get(key, (0.0, "", None))
        if error is not None and refused_mark == mark and time.monotonic() < until_s:
            raise error.with_traceback(None)

    async def _prove(self, key: str, digest: str, version: VersionId) -> Proof:
        loop = asyncio.get_running_loop()
        async with self._models[version.name]:
            self._refused = {k: r for k, r in self._refused.items() if r[0] > time.monotonic()}
            mark = await asyncio.to_thread(self._store.mark, version)
            try:
                proof = await loop.run_in_executor(self._lanes, self._run, version, digest)
            except ModelError as error:
                self._refused[key] = (time.monotonic() + REFUSED_S, mark, error)
                raise
        log.info("version_proved", version=str(version), s=round(proof.seconds, 3))
        await self._keep(key, proof=proof)
        return proof

    async def _current_key(self, version: VersionId) -> tuple[str, str]:
        """Return the key in `_records` of the files in the store on this hardware, and their digest.

        If a process died while it loaded them, their proof is dropped. Raises ModelError, StorageUnreachable.
        """
        key, digest = await asyncio.to_thread(self._key, version)
        if key not in self._records:
            record = await asyncio.to_thread(self._read, key)
            self._records.setdefault(key, record or ProofRecord(version=str(version)))
        dead = {h for h in self._records[key].loading if not await asyncio.to_thread(self._is_alive, h)}
        loading = self._records[key].loading
        if dead & set(loading):
            left = tuple(h for h in loading if h not in dead)
            deaths = self._records[key].deaths + 1
            until = time.time() + DEADLY_S if deaths >= MAX_DEATHS else 0.0
            log.error("process_ended_while_loading", version=str(version), deaths=deaths)
            await self._keep(key, proof=None, loading=left, deaths=deaths, refused_until=until)
        return key, digest

    def _key(self, version: VersionId) -> tuple[str, str]:
        digest, pool = self._store.describe(version).digest, self._pool_of(version.name)
        hardware = {"resources": pool.resources, "gpus": pool.num_gpus, "threads": pool.threads}
        about = {"version": str(version), "digest": digest, "hardware": hardware, **software()}
        return sha256_hex(canonical_json(about))[:32], digest

    def _read(self, key: str) -> ProofRecord | None:
        try:
            return ProofRecord.model_validate_json(self._folder.read(f"{key}.json"))
        except (FileNotFoundError, ValidationError):
            return None
        except ResightError as error:
            log.warning("proof_unreadable", folder=self._folder.url, error=str(error))
            return None

    async def _keep(self, key: str, **changes: Any) -> None:
        self._records[key] = self._records[key].model_copy(update=changes)
        async with self._writing:  # the last change is written last
            await asyncio.to_thread(self._write, key)

    def _write(self, key: str) -> None:
        """Write a record. If it cannot be written, the next start proves again."""
        try:
            self._folder.write(f"{key}.json", self._records[key].model_dump_json(indent=1).encode())
        except StorageError as error:
            log.warning("proof_not_kept", folder=self._folder.url, error=str(error))


def forget_loads(folder: Folder) -> None:
    """Remove the loads from all records, once the processes of their host were ended on request."""
    for name in folder.names():
        with contextlib.suppress(OSError, ValidationError, ResightError):  # at worst, the version is proved again
            record = ProofRecord.model_validate_json(folder.read(name))
            if record.loading:
                folder.write(name, record.model_copy(update={"loading": ()}).model_dump_json(indent=1).encode())


@functools.cache
def software() -> dict[str, object]:
    """Return what a proof also depends on: the versions of numerics and libraries, and the processor."""
    return {
        "numerics": (NUMERICS_VERSION, CROP_NUMERICS),
        "libraries": {"python": platform.python_version(), **library_versions()},
        "processor": cpu_name(),
    }
