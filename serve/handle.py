"""The detector replicas of the running cluster, all at once, by Ray's deployment handle.

The process must be part of the cluster (an actor, a task, or a driver after `serve.cluster.join`).
"""

from __future__ import annotations

import functools
import time
from typing import Any

from ray import serve as ray_serve
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayTaskError
from ray.serve.exceptions import DeploymentUnavailableError

from model_store.errors import ModelNotReady, ResightError
from model_store.names import VersionId
from serve.app_names import APP, DEPLOYMENT
from serve.rollout.state import ModelState

ACTIVATE_TIMEOUT_S = 30.0
SCRAPE_TIMEOUT_S = 5.0
GONE = (ActorDiedError, ActorUnavailableError, DeploymentUnavailableError)
"""A replica that is gone answers nobody; its successor reads the state file. Ask those that are left."""


class RayReplicas:
    """`serve.rollout.steps.Replicas` on a real cluster."""

    def __init__(self, load_timeout_s: float = 300.0) -> None:
        self._load_timeout_s = load_timeout_s

    def holds(self, version: VersionId) -> bool:
        return all(self._broadcast(ACTIVATE_TIMEOUT_S, "holds", str(version)))

    def ensure(self, version: VersionId, needs_bytes: int) -> None:
        self._broadcast(self._load_timeout_s, "ensure", str(version), needs_bytes)

    def activate(self, name: str, state: ModelState) -> None:
        self._broadcast(ACTIVATE_TIMEOUT_S, "activate", name, state.model_dump(mode="json"))

    def release(self, version: VersionId) -> None:
        self._broadcast(ACTIVATE_TIMEOUT_S, "release", str(version))

    def lease(self, version: VersionId, holder: str, for_s: float) -> None:
        self._broadcast(self._load_timeout_s, "lease", str(version), holder, for_s)

    async def expositions(self) -> dict[str, str]:
        """Replica to its metrics; those that do not answer in time are left out."""
        answers = await self._replicas.broadcast("exposition").results_async(
            timeout_s=SCRAPE_TIMEOUT_S, return_exceptions=True
        )
        return dict(answer for answer in answers if isinstance(answer, tuple))

    @functools.cached_property
    def _replicas(self) -> Any:
        return ray_serve.get_deployment_handle(DEPLOYMENT, APP)

    def _broadcast(self, timeout_s: float, method: str, *arguments: Any) -> list[Any]:
        """Each replica's answer; calls may be repeated, so a replica that dies costs a new try.

        Raises what a replica raises if it is one of ours, else ModelNotReady.
        """
        deadline = time.monotonic() + timeout_s
        words = " ".join(str(word) for word in (method, *arguments[:1]))
        while True:
            left_s = max(0.1, deadline - time.monotonic())
            try:
                return list(self._replicas.broadcast(method, *arguments).results(timeout_s=left_s))
            except GONE as error:
                if time.monotonic() > deadline:
                    raise ModelNotReady(f"no replica could {words}: {error}"[:1000]) from error
                time.sleep(0.2)
            except TimeoutError:
                raise ModelNotReady(f"a replica did not {words} within {timeout_s:g} s") from None
            except Exception as error:
                cause = error.cause if isinstance(error, RayTaskError) else error
                if isinstance(cause, ResightError):
                    raise cause from None
                raise ModelNotReady(f"a replica could not {words}: {cause!r}"[:1000]) from error
