"""Replicas keep the version of a run while it lasts, whatever is promoted meanwhile."""

from __future__ import annotations

import contextlib
from collections.abc import Generator

from batch.heartbeat import heartbeat
from model_store.errors import ResightError
from model_store.store import ModelVersion
from serve.handle import RayReplicas, deployed_pools

LEASE_S = 120
"""How long replicas keep the run's version after its last heartbeat."""


@contextlib.contextmanager
def leased(model: ModelVersion, pool: str, run_id: str) -> Generator[None]:
    """Let every replica of the pool load and probe the version first, and keep it while the block runs.

    Replicas that start later load it with the first chunk. Raises ModelError.
    """
    replicas, version = RayReplicas(lambda _: pool, deployed_pools()), model.id
    holder = f"run {run_id}"
    replicas.lease(version, holder, LEASE_S)
    try:
        with heartbeat(lambda: replicas.lease(version, holder, LEASE_S)):
            yield
    finally:
        with contextlib.suppress(ResightError):
            replicas.lease(version, holder, 0.0)
