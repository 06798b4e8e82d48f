"""Test what the Ray host does beside Ray: the lease of a version, and errors of replicas that have gone."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError
from ray.serve.exceptions import DeploymentUnavailableError

import batch.pipeline.on_cluster
import batch.runs.heartbeat
from batch.pipeline.on_cluster import LEASE_S, MAX_TASK_RETRIES, ClusterHost, PoolOfReplicas
from model_store.errors import ModelNotReady
from model_store.store import ModelStore, ModelVersion
from tests.fixtures_local import MODELS

RAY_NOTICES_S = 5 * 3
"""Seconds after which Ray takes a node for lost: its default is five health checks, 3 s apart."""


def test_a_chunk_is_retried_for_longer_than_ray_takes_to_notice_the_loss_of_a_node() -> None:
    delays_s = [min(0.1 * 2**retry, 5) for retry in range(MAX_TASK_RETRIES)]  # Ray's, if an actor does not answer
    assert sum(delays_s) > 2 * RAY_NOTICES_S


def test_a_lease_is_renewed_while_it_is_held(monkeypatch: pytest.MonkeyPatch, motion: ModelVersion) -> None:
    held_s, renewed = list[float](), threading.Event()

    class Replicas:
        def __init__(self, *_: object) -> None:
            pass

        def lease(self, _version: object, _holder: str, for_s: float) -> None:
            held_s.append(for_s)
            if len(held_s) > 2:
                renewed.set()

    monkeypatch.setattr(batch.runs.heartbeat, "HEARTBEAT_S", 0.01)
    monkeypatch.setattr(batch.pipeline.on_cluster, "RayReplicas", Replicas)
    monkeypatch.setattr(batch.pipeline.on_cluster, "deployed_pools", lambda: ["default"])
    with ClusterHost(ModelStore(str(MODELS))).leased(motion, "r"):
        assert renewed.wait(60)
    assert set(held_s[:-1]) == {LEASE_S}
    assert held_s[-1] == 0.0


@pytest.mark.parametrize("error", [ActorDiedError(), DeploymentUnavailableError(None), TimeoutError()])  # type: ignore[arg-type]
def test_a_replica_that_has_gone_or_hangs_is_one_that_is_not_ready(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """So that a stage asks another one."""

    def result(timeout_s: float) -> Any:
        raise error

    called = SimpleNamespace(remote=lambda _: SimpleNamespace(result=result))
    handle = SimpleNamespace(detect_chunk=called)
    monkeypatch.setattr(batch.pipeline.on_cluster, "handle_of", lambda _: handle)
    chunk: Any = None
    with pytest.raises(ModelNotReady, match="no replica answered"):
        PoolOfReplicas("default").answer("detect_chunk", chunk)
