"""One process in place of a cluster: an engine, the operator of its aliases and the writer of its uploads. No Ray.

EmbeddedHost(args) --start()--> ready to answer by `application`; close() commits what waits
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import FastAPI

from model_store.deployment import DEFAULT_POOL
from model_store.errors import ModelNotReady
from model_store.names import VersionId
from model_store.store import ModelStore
from serve.api.app import build_http_api
from serve.auth.guard import Access
from serve.inference.engine import Engine, Replica
from serve.models.pools import Placement, require_pool
from serve.observability.traces import Traces
from serve.rollout.client import RolloutClient
from serve.rollout.operator import RolloutOperator
from serve.rollout.sandbox import Proof, Sandbox
from serve.rollout.state import ModelState
from serve.settings import DetectArgs, Pool, Settings
from serve.uploads.recorder import OwnTables
from serve.uploads.uploads import Uploads

ACTIVATE_TIMEOUT_S = 30.0
T = TypeVar("T")


class EmbeddedHost:
    """Implements `serve.rollout.operator.RolloutHost`. Make and use it on one event loop."""

    def __init__(self, settings: Settings, args: DetectArgs) -> None:
        self._settings, self._loop = settings, asyncio.get_running_loop()
        self._holder = f"process {os.getpid()} of {time.time_ns()}"
        self._sandbox = Sandbox()
        self.replica = Replica()
        self._operator = RolloutOperator(args, self)
        # as in a cluster, a call is completed although the request that made it is cancelled
        self.rollouts = RolloutClient(
            lambda method, *words: asyncio.shield(getattr(self._operator, method)(*words)), self._holder
        )
        self.engine = self.replica.engine = Engine(args, Traces.of_environment(), self.rollouts)
        self._tables = OwnTables(settings.tables_url, settings.models_url)

    async def start(self) -> None:
        """Load every aliased version, then follow the alias files. Raises StorageUnreachable."""
        await self.engine.start()
        await self._operator.work()

    def application(self) -> FastAPI:
        args, settings = self.engine.args, self._settings
        uploads = Uploads(settings.uploads_url, self._tables, self.engine.metrics.uploaded, args.limits.free_mib)
        access = Access.of(settings, args.require_token)
        return build_http_api(self.engine, access, self.rollouts, cors_origins=args.cors_origins, uploads=uploads)

    async def reload(self) -> None:
        """Follow the alias files now. Raises StorageUnreachable."""
        await self.rollouts.sync()
        await self.engine.aliases.refresh()

    async def close(self) -> None:
        """Commit the rows of uploads that wait, and stop all threads and processes."""
        await self._operator.ended(self._holder)  # first: a supervisor may kill the process during the rest
        await self._tables.close()
        self._operator.stop()
        self.engine.stop()
        await asyncio.to_thread(self._sandbox.stop)

    def replicas(self, store: ModelStore, args: DetectArgs) -> OwnReplica:
        return OwnReplica(self.replica, self._loop, store, args.load_timeout_s)

    def is_alive(self, holder: str) -> bool:
        """Return whether this process is the holder: no other one serves this home."""
        return holder == self._holder

    def prove(self, url: str, version: VersionId, pool: Pool, limit_s: float, digest: str) -> Proof:
        return self._sandbox.prove(url, version, pool.threads, limit_s, digest)


class OwnReplica:
    """Implements `serve.rollout.steps.Replicas` with the replica of this process, for the operator's threads."""

    def __init__(
        self, replica: Replica, loop: asyncio.AbstractEventLoop, store: ModelStore, load_timeout_s: float
    ) -> None:
        self._replica, self._loop, self._pool_of = replica, loop, Placement(store).current
        self._load_timeout_s = load_timeout_s

    def holds(self, version: VersionId, digest: str) -> bool:
        return self._result(self._replica.holds(version, digest))

    def ensure(self, version: VersionId, digest: str) -> None:
        require_pool(version.name, self._pool_of(version.name), {DEFAULT_POOL})
        self._result(self._replica.ensure(version, digest), self._load_timeout_s)

    def activate(self, name: str, state: ModelState, version: str | None = None) -> None:
        self._result(self._replica.activate(name, state, self._pool_of(name), version))

    def release(self, version: VersionId) -> None:
        self._result(self._replica.release(version))

    def _result(self, call: Coroutine[Any, Any, T], limit_s: float = ACTIVATE_TIMEOUT_S) -> T:
        """Return the result of a call on the event loop. Raises its ResightError, and ModelNotReady if it is late."""
        pending = asyncio.run_coroutine_threadsafe(call, self._loop)
        try:
            return pending.result(limit_s)
        except TimeoutError:
            pending.cancel()
            raise ModelNotReady(f"the replica did not answer within {limit_s:g} s") from None
