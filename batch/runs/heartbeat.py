"""Keep the model version of a run loaded in the replicas, even if another version is promoted."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Generator

import structlog

from model_store.errors import ResightError
from model_store.store import ModelVersion
from serve.cluster.handles import RayReplicas, deployed_pools

HEARTBEAT_S = 30
"""Interval at which a run records that it is alive and renews its lease."""
log = structlog.get_logger("resight.run")


@contextlib.contextmanager
def heartbeat(beat: Callable[[], object]) -> Generator[None]:
    """Call `beat` in a thread until the block ends; then wait for a call that is still running.

    An error of `beat` is logged and does not end the block, or the calls: the block itself fails if it cannot
    continue.
    """
    ended = threading.Event()

    def repeat() -> None:
        while not ended.wait(HEARTBEAT_S):
            try:
                beat()
            except Exception as error:
                log.warning("heartbeat", error=f"{type(error).__name__}: {error}")

    thread = threading.Thread(target=repeat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


LEASE_S = 120
"""Time that replicas keep the run's version after its last heartbeat."""


@contextlib.contextmanager
def leased(model: ModelVersion, pool: str, run_id: str) -> Generator[None]:
    """Load and probe the version in every replica of the pool, and keep it while the block runs.

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
