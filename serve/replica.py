"""The detector replica: HTTP ingress and models in one process, so that a request makes one hop.

Ray calls `__serve_build_asgi_app__` after the constructor and serves that app over HTTP; the other
methods are reached by handle. All logic is in `engine.py` and `rollout/`.
"""

from __future__ import annotations

import gc
from typing import Any

import ray
from fastapi import FastAPI
from ray import serve as ray_serve

from model_store.deployment import DEFAULT_POOL
from model_store.names import parse_version
from serve.access import Access
from serve.chunks import Chunk, ChunkAnswer, LogitsAnswer
from serve.engine import Engine
from serve.forward import PassedAnswer, PassedRequest
from serve.handle import RayPools, RayReplicas
from serve.http_api import build_http_api
from serve.logs import configure_logs
from serve.priority import interrupt_at_once
from serve.rollout.actor import start_rollout
from serve.rollout.client import RayRollouts
from serve.rollout.state import ModelState
from serve.serving import Serving, serving_of
from serve.settings import DetectArgs, Settings
from serve.table_actor import RayTables
from serve.traces import Traces
from serve.uploads import Uploads


class DetectorReplica:
    """Ready once every aliased version is verified, loaded and has reproduced its probe."""

    async def __init__(self, args: DetectArgs, others: dict[str, Any] | None = None) -> None:
        """`others` are the handles of the other pools, for the one that listens."""
        configure_logs()
        interrupt_at_once()
        self._engine = Engine(args, Traces.of_environment())
        self._pools = RayPools(others or {})
        rollout = start_rollout(args)
        holder = ray.get_runtime_context().get_actor_name()
        self._rollouts = RayRollouts(rollout, holder or "")
        self._engine.residents.prover = self._rollouts
        if args.pool == DEFAULT_POOL:
            await rollout.reconfigure.remote(args)
        await self._engine.start()
        if args.pool == DEFAULT_POOL:
            await rollout.work.remote()
        self._uploads = Uploads(
            Settings().uploads_url, RayTables(), self._engine.uploaded, args.limits.free_mib
        )
        self._inner: FastAPI | None = None
        self._engine.residents.started()
        gc.freeze()  # a collection, as after a release, would stop all for 0.1 s over what never goes

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

    async def answer(self, request: PassedRequest) -> PassedAnswer:
        """An HTTP request that another pool let in, for a model that lives here."""
        self._inner = self._inner or build_http_api(
            self._engine, rollouts=self._rollouts, uploads=self._uploads
        )
        return await request.ask(self._inner)

    async def serving(self) -> Serving:
        return serving_of(self._engine.residents)

    async def exposition(self) -> tuple[str, str]:
        """This replica's name and metrics."""
        return ray_serve.get_replica_context().replica_id.unique_id, self._engine.exposition()

    async def detect_chunk(self, chunk: Chunk) -> ChunkAnswer:
        return await self._engine.detect_chunk(chunk)

    async def classify_chunk(self, chunk: Chunk) -> LogitsAnswer:
        return await self._engine.classify_chunk(chunk)

    async def arguments(self) -> DetectArgs:
        """With which this replica was deployed."""
        return self._engine.args

    async def holds(self, version: str, digest: str) -> bool:
        """It counts as used: what a rollout builds on is not released under it."""
        exact, versions = parse_version(version), self._engine.residents.versions
        if exact in versions:
            versions.use(exact)
        return versions.holds(exact, digest)

    async def ensure(self, version: str, digest: str) -> str:
        """Load a version from files of this digest if it is not here yet; its inference key. Raises ModelError."""
        return await self._engine.ensure(parse_version(version), digest)

    async def activate(self, name: str, state: dict[str, Any], pool: str) -> None:
        """Raises ModelError; where the model does not live, all there is to know is where it does."""
        self._engine.placement.set(name, pool)
        if pool == self._engine.args.pool:
            await self._engine.residents.activate(name, ModelState.model_validate(state))

    async def release(self, version: str) -> bool:
        """Raises Conflict when an alias means it or a run holds it."""
        return await self._engine.residents.release(parse_version(version))

    async def lease(self, version: str, holder: str, for_s: float) -> str:
        """Load it if need be, proved first, and keep it; its inference key. Raises ModelError."""
        exact, key = parse_version(version), ""
        if for_s > 0:
            key = await self._engine.ensure(exact)
        self._engine.residents.versions.lease(exact, holder, for_s)
        return key

    def __del__(self) -> None:
        if hasattr(self, "_engine"):
            self._engine.stop()
