"""`RolloutActor`: the operator of a cluster's aliases, one detached actor, restarted by Ray."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import ray
import structlog
from ray import serve as ray_serve
from ray.exceptions import GetTimeoutError, OutOfMemoryError, RayTaskError, WorkerCrashedError

from model_store.errors import ModelNotReady, ModelRefused, ResightError
from model_store.names import VersionId
from model_store.store import ModelStore
from serve.cluster.handles import RayReplicas, unwrapped
from serve.inference.os_priority import lower_process_priority
from serve.log_config import configure_logs
from serve.models.pools import Placement
from serve.rollout.operator import RolloutOperator
from serve.rollout.sandbox import Proof, Sandbox, prove
from serve.settings import APP, DEPLOYMENT, DetectArgs, Pool

NAME, NAMESPACE = "resight-rollout", "resight"
log = structlog.get_logger("resight.rollout")


class RolloutActor(RolloutOperator):
    """Async actor. Replicas give it their arguments; after a restart it gets them from one."""

    def __init__(self, args: DetectArgs) -> None:
        configure_logs()
        lower_process_priority()
        super().__init__(args, RayHost())
        if ray.get_runtime_context().was_current_actor_reconstructed:  # `args` may be outdated
            self._start(self._catch_up())

    async def _catch_up(self) -> None:
        detectors = ray_serve.get_deployment_handle(DEPLOYMENT, APP)
        while True:
            try:
                await self.reconfigure(await detectors.arguments.remote())
                await self.work()
                return
            except Exception as error:  # no replica runs yet, for example
                log.warning("arguments_unknown", error=str(error)[:300])
                await asyncio.sleep(self._args.poll_s)


class RayHost:
    """Implements `serve.rollout.operator.RolloutHost` on a cluster."""

    def __init__(self) -> None:
        self._sandbox = Sandbox()

    def replicas(self, store: ModelStore, args: DetectArgs) -> RayReplicas:
        return RayReplicas(Placement(store).current, args.pools, args.load_timeout_s)

    def is_alive(self, holder: str) -> bool:
        try:
            ray.get_actor(holder, namespace="serve")
            return True
        except ValueError:
            return False

    def prove(self, url: str, version: VersionId, pool: Pool, limit_s: float, digest: str) -> Proof:
        """Prove on a node with the pool's `resources`, else on this node. Raises ModelError."""
        if not pool.resources:
            return self._sandbox.prove(url, version, pool.threads, limit_s, digest)
        task = _prove.options(resources=pool.resources)  # GPUs belong to the replicas
        pending: Any = task.remote(url, version, pool.threads, digest)
        try:
            return ray.get(pending, timeout=limit_s)
        except GetTimeoutError:
            ray.cancel(pending, force=True)
            raise ModelNotReady(f"{version} did not load and probe within {limit_s:g} s") from None
        except (WorkerCrashedError, OutOfMemoryError) as error:
            raise ModelRefused(f"{version} ended the process that loaded it: {error}") from error
        except RayTaskError as error:
            if isinstance(cause := unwrapped(error), ResightError):
                raise cause from None
            raise ModelRefused(f"{version} cannot be loaded: {cause!r}"[:1000]) from error


@ray.remote(num_cpus=0, max_calls=1, max_retries=0)
def _prove(url: str, version: VersionId, threads: int, digest: str) -> Proof:
    """Prove a version in a process that ends with the call, on a node of a pool's hardware."""
    lower_process_priority()
    return prove(url, version, threads, digest)


def start_rollout(args: DetectArgs) -> Callable[..., Awaitable[Any]]:
    """Start the actor unless it runs; return a function that calls its method of a name. Raises its ResightErrors."""
    remote: Any = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(RolloutActor)
    options = {"name": NAME, "namespace": NAMESPACE, "lifetime": "detached", "get_if_exists": True}
    actor = remote.options(**options).remote(args)

    async def call(method: str, *arguments: Any) -> Any:
        try:
            return await getattr(actor, method).remote(*arguments)
        except RayTaskError as error:
            raise unwrapped(error) from None

    return call
