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
from serve.api.app import build_http_api
from serve.auth.guard import Access
from serve.cluster.handles import RayPools, RayReplicas
from serve.cluster.rollout_actor import start_rollout
from serve.inference.engine import Engine, Replica
from serve.inference.os_priority import set_normal_scheduling
from serve.log_config import configure_logs
from serve.models.pool_proxy import ForwardedAnswer, ForwardedRequest
from serve.observability.traces import Traces
from serve.rollout.client import RolloutClient
from serve.settings import DetectArgs, Settings
from serve.uploads.actors import RayTables
from serve.uploads.uploads import Uploads


class DetectorReplica(Replica):
    """A replica, which is ready once every aliased version is verified, loaded and has reproduced its probe."""

    async def __init__(self, args: DetectArgs, others: dict[str, Any] | None = None) -> None:
        """`others` are the handles of the other pools, given to the pool that serves HTTP."""
        configure_logs()
        set_normal_scheduling()
        self._pools = RayPools(others or {})
        rollout = start_rollout(args)
        holder = ray.get_runtime_context().get_actor_name()
        self._rollouts = RolloutClient(rollout, holder or "")
        self.engine = Engine(args, Traces.of_environment(), self._rollouts)
        if args.pool == DEFAULT_POOL:
            await rollout("reconfigure", args)
        await self.engine.start()
        if args.pool == DEFAULT_POOL:
            await rollout("work")
        self._uploads = Uploads(Settings().uploads_url, RayTables(), self.engine.metrics.uploaded, args.limits.free_mib)
        self._inner: FastAPI | None = None
        gc.freeze()  # else a full collection pauses the process for 0.1 s over objects that are never freed

    def __serve_build_asgi_app__(self) -> FastAPI:
        args = self.engine.args
        access = Access.of(Settings(), args.require_token)
        replicas = RayReplicas(self.engine.placement.pool_of, args.pools)
        return build_http_api(
            self.engine,
            access,
            self._rollouts,
            replicas.expositions,
            args.cors_origins,
            self._pools if args.pools else None,
            self._uploads,
        )

    async def answer(self, request: ForwardedRequest) -> ForwardedAnswer:
        """Answer a forwarded HTTP request, which another pool has authorised, for a model placed here."""
        self._inner = self._inner or build_http_api(self.engine, rollouts=self._rollouts, uploads=self._uploads)
        return await request.send_to(self._inner)

    async def exposition(self) -> tuple[str, str]:
        return ray_serve.get_replica_context().replica_id.unique_id, self.engine.exposition()

    async def arguments(self) -> DetectArgs:
        return self.engine.args

    def __del__(self) -> None:
        if hasattr(self, "engine"):
            self.engine.stop()
