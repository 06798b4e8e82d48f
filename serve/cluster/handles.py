"""Call detector replicas by Ray's deployment handles: all replicas of a pool, or one of them.

The process must be part of the cluster (an actor, a task, or a driver after `serve.cluster.head.join`).
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

import structlog
from ray import serve as ray_serve
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayTaskError
from ray.serve.exceptions import DeploymentUnavailableError, RayServeException

from model_store.deployment import DEFAULT_POOL
from model_store.errors import SOON_S, ModelNotReady, ResightError
from model_store.names import VersionId
from serve.models.pool_proxy import ForwardedAnswer, ForwardedRequest
from serve.models.pools import POOL, Serving, require_pool
from serve.rollout.state import ModelState
from serve.settings import APP, deployment_of

log = structlog.get_logger("resight.serve")

ACTIVATE_TIMEOUT_S = 30.0
LOOK_TIMEOUT_S = 5.0
ALIVE_S = 5.0
"""Seconds after an answer during which a pool is assumed to be alive."""
GONE = (ActorDiedError, ActorUnavailableError, DeploymentUnavailableError)
"""Errors of a replica that has ended. The others are called again; its successor reads the state file itself."""


def deployed_pools() -> list[str]:
    application = ray_serve.status().applications.get(APP)
    names, prefix = application.deployments if application else (), deployment_of("")
    return [DEFAULT_POOL, *(n.removeprefix(prefix) for n in names if n.startswith(prefix))]


def handle_of(pool: str) -> Any:
    """Return Ray's handle of a pool. Raises ModelNotReady if it is not deployed, as while a cluster starts."""
    try:
        return ray_serve.get_deployment_handle(deployment_of(pool), APP)
    except (KeyError, RayServeException) as error:
        raise ModelNotReady(
            f"the detectors of the pool '{pool}' are not deployed yet: see 'resight status', then try again"
        ) from error


def unwrapped(error: Exception) -> Exception:
    """Return the error that a call has raised, from Ray's error around it; other errors unchanged."""
    return error.cause if isinstance(error, RayTaskError) and isinstance(error.cause, Exception) else error


class RayReplicas:
    """Implements `serve.rollout.steps.Replicas` on a cluster. `pool_of(name)` returns the current pool of a model."""

    def __init__(
        self, pool_of: Callable[[str], str], pools: Collection[str] = (), load_timeout_s: float = 300.0
    ) -> None:
        self._pool_of, self._load_timeout_s = pool_of, load_timeout_s
        self._pools = sorted({DEFAULT_POOL, *pools})

    def holds(self, version: VersionId, digest: str) -> bool:
        return all(self._home(ACTIVATE_TIMEOUT_S, version, "holds", digest))

    def ensure(self, version: VersionId, digest: str) -> None:
        self._home(self._load_timeout_s, version, "ensure", digest, deaths=1)

    def activate(self, name: str, state: ModelState, version: str | None = None) -> None:
        """Activate a state in the model's pool, and notify the other pools of the model's placement."""
        own = self._pool_of(name)
        for pool in sorted(self._pools, key=lambda pool: pool != own):  # its own first
            self._broadcast(ACTIVATE_TIMEOUT_S, pool, "activate", name, state, own, version)

    def release(self, version: VersionId) -> None:
        self._home(ACTIVATE_TIMEOUT_S, version, "release")

    def lease(self, version: VersionId, holder: str, for_s: float) -> None:
        self._home(self._load_timeout_s, version, "lease", holder, for_s, deaths=1)

    async def expositions(self) -> dict[str, str]:
        """Return the metrics of each replica by name. Replicas that do not answer in time are omitted."""
        pools = await asyncio.gather(*map(self._expositions, self._pools), return_exceptions=True)
        return {name: text for pool in pools if isinstance(pool, dict) for name, text in pool.items()}

    async def _expositions(self, pool: str) -> dict[str, str]:
        calls = self._handle(pool).broadcast("exposition")
        answers = await calls.results_async(timeout_s=LOOK_TIMEOUT_S, return_exceptions=True)
        return dict(answer for answer in answers if isinstance(answer, tuple))

    def _home(
        self, timeout_s: float, version: VersionId, method: str, *more: Any, deaths: int | None = None
    ) -> list[Any]:
        pool = self._pool_of(version.name)
        require_pool(version.name, pool, self._pools)
        return self._broadcast(timeout_s, pool, method, version, *more, deaths=deaths)

    @functools.lru_cache  # noqa: B019  one instance per process, until it ends
    def _handle(self, pool: str) -> Any:
        return handle_of(pool)

    def _broadcast(
        self, timeout_s: float, pool: str, method: str, *arguments: Any, deaths: int | None = None
    ) -> list[Any]:
        """Return the answer of each running replica. Raises the ResightError of a replica, else ModelNotReady.

        The call is repeated if a replica dies or if Ray could not reach one. If more than `deaths` replicas die, the
        call itself is assumed to kill them, and ModelNotReady is raised.
        """
        deadline, words = time.monotonic() + timeout_s, " ".join(map(str, (method, *arguments[:1])))
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
                cause = unwrapped(error)
                if isinstance(cause, ResightError):
                    raise cause from None
                raise ModelNotReady(f"a replica could not {words}: {cause!r}"[:1000]) from error


def _running(pool: str) -> int:
    """Return the number of running replicas of a pool by Serve's controller, or 0 if it does not answer."""
    try:
        deployment = ray_serve.status().applications[APP].deployments[deployment_of(pool)]
        states: Any = deployment.replica_states  # keyed by the states' names
    except Exception as error:
        log.warning("replicas_not_counted", pool=pool, error=repr(error)[:300])
        return 0
    return int(states.get("RUNNING", 0))


class RayPools:
    """Implements `serve.models.pools.Pools` with the handles of the other pools, by name."""

    def __init__(self, handles: Mapping[str, Any]) -> None:
        self._handles = handles
        self._answered_s: dict[str, float] = {}

    async def answer(self, pool: str, request: ForwardedRequest) -> ForwardedAnswer:
        """Return the answer of one replica of the pool, or of a second one if the first dies.

        Forwarded requests are idempotent, so they can be repeated. Raises ModelNotReady.
        """
        await self._require_alive(pool)
        for last in (False, True):
            pending = self._handles[pool].answer.remote(request)
            try:
                answer: ForwardedAnswer = await pending
                self._answered_s[pool] = time.monotonic()
                return answer
            except asyncio.CancelledError:
                pending.cancel()
                raise
            except GONE as error:
                if last:
                    raise ModelNotReady(f"the pool '{pool}' cannot answer: {error}"[:500], SOON_S) from error
        raise AssertionError("unreachable")

    async def _require_alive(self, pool: str) -> None:
        """Raise ModelNotReady if no replica answers: Ray would let the request wait forever."""
        if time.monotonic() - self._answered_s.get(pool, -ALIVE_S) < ALIVE_S:
            return
        try:
            await asyncio.wait_for(self._handles[pool].serving.remote(), LOOK_TIMEOUT_S)
        except (TimeoutError, *GONE) as error:
            raise ModelNotReady(f"no replica of the pool '{pool}' answers; see 'resight status'", SOON_S) from error
        self._answered_s[pool] = time.monotonic()

    async def serving(self) -> Serving:
        """Return the loaded versions of the other pools. A pool that does not answer is listed as a failure."""
        total = Serving()
        for pool, handle in self._handles.items():
            try:
                serving: Serving = await asyncio.wait_for(handle.serving.remote(), LOOK_TIMEOUT_S)
            except Exception as error:  # any error means that the pool does not serve
                serving = Serving(failures={f"{POOL}{pool}": f"the pool does not answer: {type(error).__name__}"})
            total = total.plus(serving)
        return total
