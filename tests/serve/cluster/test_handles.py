"""A call to all replicas counts when as many have answered as serve: Ray leaves out those it cannot reach."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import RayTaskError
from ray.serve.exceptions import RayServeException

from model_store.errors import Conflict, ModelNotReady
from model_store.names import VersionId
from serve.cluster import handles as handle
from serve.cluster.handles import RayReplicas
from serve.rollout.state import ModelState
from serve.settings import APP, deployment_of


class Deployment:
    """A handle like Serve's: each broadcast reaches the next number of replicas in `reached`, then always the last."""

    def __init__(self, *reached: int, running: int) -> None:
        self.reached, self.running, self.calls = list(reached), running, 0
        self.error: Exception | None = None

    def broadcast(self, *_: object) -> Any:
        self.calls += 1
        count = self.reached.pop(0) if len(self.reached) > 1 else self.reached[0]
        return SimpleNamespace(results=lambda timeout_s: self._results(count))

    def status(self) -> Any:
        states = {"RUNNING": self.running, "STOPPING": 3, "STARTING": 1}
        deployments = {deployment_of("default"): SimpleNamespace(replica_states=states)}
        return SimpleNamespace(applications={APP: SimpleNamespace(deployments=deployments)})

    def _results(self, count: int) -> list[bool]:
        if self.error:
            raise self.error
        return [True] * count


@pytest.fixture
def replicas(monkeypatch: pytest.MonkeyPatch) -> Any:
    def over(deployment: Deployment) -> RayReplicas:
        monkeypatch.setattr(RayReplicas, "_handle", lambda *_: deployment)
        monkeypatch.setattr(handle.ray_serve, "status", deployment.status)
        monkeypatch.setattr(handle, "ACTIVATE_TIMEOUT_S", 0.5)
        return RayReplicas(lambda _: "default")

    return over


def test_a_replica_that_was_left_out_is_asked_again(replicas: Any) -> None:
    deployment = Deployment(1, 1, 2, running=2)
    replicas(deployment).activate("deer", ModelState())
    assert deployment.calls == 3


def test_a_replica_that_cannot_be_reached_is_no_acknowledgement(replicas: Any) -> None:
    with pytest.raises(ModelNotReady, match="only 1 of 2 replicas could activate deer"):
        replicas(Deployment(1, running=2)).activate("deer", ModelState())


def test_where_serve_cannot_count_those_that_were_reached_are_all(
    replicas: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unavailable() -> None:
        raise ConnectionError("the controller starts again")

    over = replicas(Deployment(1, running=2))
    monkeypatch.setattr(handle.ray_serve, "status", unavailable)
    over.activate("deer", ModelState())


@pytest.mark.parametrize("error", [KeyError("no such deployment"), RayServeException("no Serve instance is running")])
def test_a_cluster_that_starts_has_no_detectors_yet(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """A run that starts in that moment ends with exit code 6 and not with a traceback."""

    def missing(*_: object) -> None:
        raise error

    monkeypatch.setattr(handle.ray_serve, "get_deployment_handle", missing)
    monkeypatch.setattr(handle.ray_serve, "status", lambda: SimpleNamespace(applications={}))
    assert handle.deployed_pools() == ["default"]
    with pytest.raises(ModelNotReady, match="the pool 'default' are not deployed yet"):
        RayReplicas(lambda _: "default", handle.deployed_pools()).lease(VersionId("deer", "1"), "run r", 60.0)


def test_the_error_of_a_replica_is_raised(replicas: Any) -> None:
    deployment = Deployment(2, running=2)
    cause = Conflict("knows a newer state")
    deployment.error = RayTaskError("activate", "traceback", cause)
    with pytest.raises(Conflict, match="newer state"):
        replicas(deployment).activate("deer", ModelState())
