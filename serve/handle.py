"""The detector replicas of the running cluster, by Ray's deployment handles: all at once, or one of a pool.

The process must be part of the cluster (an actor, a task, or a driver after `serve.cluster.join`).
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

import ray
import structlog
from ray import serve as ray_serve
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayTaskError
from ray.serve.exceptions import DeploymentUnavailableError

from model_store.deployment import DEFAULT_POOL
from model_store.errors import ModelNotReady, ResightError
from model_store.names import VersionId
from serve.app_names import APP, deployment_of
from serve.forward import PassedAnswer, PassedRequest
from serve.placement import require_pool
from serve.rollout.state import ModelState
from serve.serving import POOL, Serving

log = structlog.get_logger("resight.serve")

ACTIVATE_TIMEOUT_S = 30.0
LOOK_TIMEOUT_S = 5.0
ALIVE_S = 5.0
"""A pool that has answered so lately is not asked whether it is there."""
SERVE_NAMESPACE = "serve"
GONE = (ActorDiedError, ActorUnavailableError, DeploymentUnavailableError)
"""A replica that is gone answers nobody; its successor reads the state file. Ask those that are left."""


def deployed_pools() -> list[str]:
    """The pools of the application as it is deployed."""
    names = ray_serve.status().applications[APP].deployments
    prefix = deployment_of("")
    return [DEFAULT_POOL, *(n.removeprefix(prefix) for n in names if n.startswith(prefix))]


class RayReplicas:
    """`serve.rollout.steps.Replicas` on a real cluster. `pool_of(name)` says where a model lives now."""

    def __init__(
        self,
        pool_of: Callable[[str], str],
        pools: Collection[str] = (),
        load_timeout_s: float = 300.0,
    ) -> None:
        self._pool_of, self._load_timeout_s = pool_of, load_timeout_s
        self._pools = sorted({DEFAULT_POOL, *pools})

    def holds(self, version: VersionId, digest: str) -> bool:
        return all(self._home(ACTIVATE_TIMEOUT_S, version, "holds", digest))

    def ensure(self, version: VersionId, digest: str) -> None:
        self._home(self._load_timeout_s, version, "ensure", digest, deaths=1)

    def activate(self, name: str, state: ModelState) -> None:
        """In every pool: those where it does not live learn where it does."""
        pool, told = self._pool_of(name), state.model_dump(mode="json")
        for one in sorted(self._pools, key=lambda one: one != pool):  # its own first
            self._broadcast(ACTIVATE_TIMEOUT_S, one, "activate", name, told, pool)

    def release(self, version: VersionId) -> None:
        self._home(ACTIVATE_TIMEOUT_S, version, "release")

    def lease(self, version: VersionId, holder: str, for_s: float) -> None:
        self._home(self._load_timeout_s, version, "lease", holder, for_s, deaths=1)

    async def expositions(self) -> dict[str, str]:
        """Replica to its metrics; pools that do not answer in time are left out."""
        pools = await asyncio.gather(*map(self._expositions, self._pools), return_exceptions=True)
        return {
            name: text for pool in pools if isinstance(pool, dict) for name, text in pool.items()
        }

    async def _expositions(self, pool: str) -> dict[str, str]:
        asked = self._handle(pool).broadcast("exposition")
        answers = await asked.results_async(timeout_s=LOOK_TIMEOUT_S, return_exceptions=True)
        return dict(one for one in answers if isinstance(one, tuple))

    def _home(
        self,
        timeout_s: float,
        version: VersionId,
        method: str,
        *more: Any,
        deaths: int | None = None,
    ) -> list[Any]:
        pool = self._pool_of(version.name)
        require_pool(version.name, pool, self._pools)
        return self._broadcast(timeout_s, pool, method, str(version), *more, deaths=deaths)

    @functools.lru_cache  # noqa: B019  one instance a process, as long as it lives
    def _handle(self, pool: str) -> Any:
        return ray_serve.get_deployment_handle(deployment_of(pool), APP)

    def _broadcast(
        self, timeout_s: float, pool: str, method: str, *arguments: Any, deaths: int | None = None
    ) -> list[Any]:
        """The answer of each running replica. Calls may be repeated: a replica that dies, or that Ray could not reach
        and left out, costs a new try. After more than `deaths` of them it is the call that kills.

        Raises what a replica raises if it is one of ours, else ModelNotReady.
        """
        deadline = time.monotonic() + timeout_s
        words = " ".join(str(word) for word in (method, *arguments[:1]))
        replicas, died = self._handle(pool), 0
        while True:
            left_s = max(0.1, deadline - time.monotonic())
            try:
                answers = list(replicas.broadcast(method, *arguments).results(timeout_s=left_s))
                running = _running(pool)
                if len(answers) >= running:
                    return answers
                if time.monotonic() > deadline:
                    raise ModelNotReady(
                        f"only {len(answers)} of {running} replicas could {words}: the others cannot be reached"
                    )
                time.sleep(0.2)
            except GONE as error:
                died += isinstance(error, ActorDiedError)
                if time.monotonic() > deadline or (deaths is not None and died > deaths):
                    raise ModelNotReady(f"no replica could {words}: {error}"[:1000]) from error
                time.sleep(0.2)
            except TimeoutError:
                raise ModelNotReady(f"a replica did not {words} within {timeout_s:g} s") from None
            except Exception as error:
                cause = error.cause if isinstance(error, RayTaskError) else error
                if isinstance(cause, ResightError):
                    raise cause from None
                raise ModelNotReady(f"a replica could not {words}: {cause!r}"[:1000]) from error


def _running(pool: str) -> int:
    """Replicas of a pool that serve, as Serve's controller counts them; 0 where it does not answer."""
    try:
        deployment = ray_serve.status().applications[APP].deployments[deployment_of(pool)]
        states: Any = deployment.replica_states  # keyed by the states' names
    except Exception as error:
        log.warning("replicas_not_counted", pool=pool, error=repr(error)[:300])
        return 0
    return int(states.get("RUNNING", 0))


def is_alive(replica: str) -> bool:
    """Return True unless the actor of this name, a replica's, has ended."""
    try:
        ray.get_actor(replica, namespace=SERVE_NAMESPACE)
        return True
    except ValueError:
        return False


class RayPools:
    """`serve.forward.Pools`: the handles of the other pools, by name."""

    def __init__(self, handles: Mapping[str, Any]) -> None:
        self._handles = handles
        self._seen_s: dict[str, float] = {}

    async def answer(self, pool: str, request: PassedRequest) -> PassedAnswer:
        """Of any replica there; of a second one when the first dies, for what is passed on is idempotent.

        Raises ModelNotReady.
        """
        await self._require_alive(pool)
        for last in (False, True):
            pending = self._handles[pool].answer.remote(request)
            try:
                answer: PassedAnswer = await pending
                self._seen_s[pool] = time.monotonic()
                return answer
            except asyncio.CancelledError:
                pending.cancel()
                raise
            except GONE as error:
                if last:
                    raise ModelNotReady(
                        f"the pool '{pool}' cannot answer: {error}"[:500]
                    ) from error
        raise AssertionError("unreachable")

    async def _require_alive(self, pool: str) -> None:
        """Raises ModelNotReady: Ray would let a request wait for a pool without replicas for ever."""
        if time.monotonic() - self._seen_s.get(pool, -ALIVE_S) < ALIVE_S:
            return
        try:
            await asyncio.wait_for(self._handles[pool].serving.remote(), LOOK_TIMEOUT_S)
        except (TimeoutError, *GONE) as error:
            raise ModelNotReady(
                f"no replica of the pool '{pool}' answers; see 'resight status'"
            ) from error
        self._seen_s[pool] = time.monotonic()

    async def serving(self) -> Serving:
        """What the other pools have loaded. A pool that does not answer is a failure in it."""
        found = Serving()
        for pool, handle in self._handles.items():
            try:
                found = found.plus(await asyncio.wait_for(handle.serving.remote(), LOOK_TIMEOUT_S))
            except Exception as error:  # whatever it is, the pool does not serve now
                why = f"the pool does not answer: {type(error).__name__}"
                found = found.plus(Serving(failures={f"{POOL}{pool}": why}))
        return found
