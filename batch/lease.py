"""Replicas keep the version of a run while it lasts, whatever is promoted meanwhile."""

from __future__ import annotations

import contextlib

from model_store.errors import ResightError
from model_store.store import ModelVersion
from serve.handle import RayReplicas, deployed_pools

LEASE_S = 120
"""How long replicas keep the run's version after its last heartbeat."""


class Lease:
    """Every replica of the pool loads and probes the version before the first image is read, and keeps it
    while the run lasts, whatever is promoted meanwhile. Raises ModelError on entering.
    """

    def __init__(self, model: ModelVersion, pool: str, run_id: str) -> None:
        self._replicas, self._version = RayReplicas(lambda _: pool, deployed_pools()), model.id
        self._holder = f"run {run_id}"

    def __enter__(self) -> Lease:
        self._replicas.lease(self._version, self._holder, LEASE_S)
        return self

    def renew(self) -> None:
        with contextlib.suppress(ResightError):  # replicas come and go; chunks load it again
            self._replicas.lease(self._version, self._holder, LEASE_S)

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ResightError):
            self._replicas.lease(self._version, self._holder, 0.0)
