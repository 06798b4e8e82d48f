"""Detector replica: HTTP ingress and models in one process, so that a request makes one hop.

Ray calls `__serve_build_asgi_app__` after the constructor and serves that application over HTTP. The other methods are
called by handle. All logic is in `inference/engine.py` and `rollout/`.
"""

from __future__ import annotations

import gc
from typing import Any

import ray
from fastapi import FastAPI
from ray import serve as ray_serve

from model_store.deployment import DEFAULT_POOL
from model_store.names import parse_version
from serve.api.app import build_http_api
from serve.auth.guard import Access
from serve.cluster.handles import RayPools, RayReplicas
from serve.inference.chunks import Chunk, ChunkAnswer, LogitsAnswer
from serve.inference.engine import Engine
from serve.inference.os_priority import set_normal_scheduling
from serve.log_config import configure_logs
from serve.models.pool_proxy import ForwardedAnswer, ForwardedRequest
from serve.models.readiness import Serving
from serve.observability.traces import Traces
from serve.rollout.actor import start_rollout
from serve.rollout.client import RayRollouts
from serve.rollout.state import ModelState
from serve.settings import DetectArgs, Settings
from serve.uploads.actors import RayTables
from serve.uploads.uploads import Uploads


class DetectorReplica:
    """A replica, which is ready once every aliased version is verified, loaded and has reproduced its probe."""

    async def __init__(self, args: DetectArgs, others: dict[str, Any] | None = None) -> None:
        """`others` are the handles of the other pools, given to the pool that serves HTTP."""
        configure_logs()
        set_normal_scheduling()
        self._pools = RayPools(others or {})
        rollout = start_rollout(args)
        holder = ray.get_runtime_context().get_actor_name()
        self._rollouts = RayRollouts(rollout, holder or "")
        self._engine = Engine(args, Traces.of_environment(), self._rollouts)
        if args.pool == DEFAULT_POOL:
            await rollout.reconfigure.remote(args)
        await self._engine.start()
        if args.pool == DEFAULT_POOL:
            await rollout.work.remote()
        self._uploads = Uploads(
            Settings().uploads_url, RayTables(), self._engine.metrics.uploaded, args.limits.free_mib
        )
        self._inner: FastAPI | None = None
        gc.freeze()  # else a full collection pauses the process for 0.1 s over objects that are never freed

    def __serve_build_asgi_app__(self) -> FastAPI:
        args = self._engine.args
        access = Access.of(Settings(), args.require_token)
        replicas = RayReplicas(self._engine.placement.pool_of, args.pools)
        return build_http_api(
            self._engine,
            access,
            self._rollouts,
            replicas.expositions,
            args.cors_origins,
            self._pools if args.pools else None,
            self._uploads,
        )

    async def answer(self, request: ForwardedRequest) -> ForwardedAnswer:
        """Answer a forwarded HTTP request, which another pool has authorised, for a model placed here."""
        self._inner = self._inner or build_http_api(
            self._engine, rollouts=self._rollouts, uploads=self._uploads
        )
        return await request.send_to(self._inner)

    async def serving(self) -> Serving:
        """Return the loaded versions and failures of this replica."""
        return self._engine.serving()

    async def exposition(self) -> tuple[str, str]:
        """Return this replica's name and metrics."""
        return ray_serve.get_replica_context().replica_id.unique_id, self._engine.exposition()

    async def detect_chunk(self, chunk: Chunk) -> ChunkAnswer:
        """Detect in the images of a chunk. Raises as `Engine.detect_chunk`."""
        return await self._engine.detect_chunk(chunk)

    async def classify_chunk(self, chunk: Chunk) -> LogitsAnswer:
        """Classify the crops of a chunk. Raises as `Engine.classify_chunk`."""
        return await self._engine.classify_chunk(chunk)

    async def arguments(self) -> DetectArgs:
        """Return the arguments with which this replica was deployed."""
        return self._engine.args

    async def holds(self, version: str, digest: str) -> bool:
        """Return whether a version is loaded from files of this digest.

        This counts as a use, so that a version that a rollout relies on is not released as idle.
        """
        exact, models = parse_version(version), self._engine.models
        if exact in models:
            models.use(exact)
        return models.holds(exact, digest)

    async def ensure(self, version: str, digest: str) -> str:
        """Load a version from files of this digest unless it is loaded; return its inference key. Raises ModelError."""
        return await self._engine.ensure(parse_version(version), digest)

    async def activate(self, name: str, state: dict[str, Any], pool: str) -> None:
        """Set the pool of a model and, in that pool, activate its state. Raises ModelError, Conflict."""
        self._engine.placement.set(name, pool)
        if pool == self._engine.args.pool:
            await self._engine.aliases.activate(name, ModelState.model_validate(state))

    async def release(self, version: str) -> bool:
        """Release a version; return False if it was not loaded. Raises Conflict if an alias or a run needs it."""
        return await self._engine.aliases.release(parse_version(version))

    async def lease(self, version: str, holder: str, for_s: float) -> str:
        """Prove and load a version if necessary, protect it from release, and return its inference key.

        With `for_s` 0, end the lease and return "". Raises ModelError.
        """
        exact, key = parse_version(version), ""
        if for_s > 0:
            key = await self._engine.ensure(exact)
        self._engine.models.lease(exact, holder, for_s)
        return key

    def __del__(self) -> None:
        if hasattr(self, "_engine"):
            self._engine.stop()
