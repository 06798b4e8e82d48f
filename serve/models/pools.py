"""Placement of each model in a pool of replicas, as its deployment.json sets it.

look(name) reads the file again; a damaged file changes nothing. After a model has moved away,
its old pool continues to answer for KEEP_S, until every replica has been notified: no request is lost.
"""

from __future__ import annotations

import time
from collections.abc import Collection

import structlog

from model_store.deployment import DEFAULT_POOL, read_pool
from model_store.errors import ModelNotReady, ModelRefused
from model_store.store import ModelStore

log = structlog.get_logger("resight.serve")

KEEP_S = 10.0
"""Seconds for which a pool answers for a model that has moved to another one."""


def require_pool(name: str, pool: str, pools: Collection[str]) -> None:
    """Raise ModelNotReady if the application lacks the pool of a model."""
    if pool not in pools:
        raise ModelNotReady(
            f"{name} requires the pool '{pool}' (deployment.json), but the application has only "
            f"{', '.join(sorted(pools))}: deploy that pool, or place the model in one of these"
        )


class Placement:
    """The placement that one replica has read: `own` is its pool, `pools` are all pools of the application."""

    def __init__(self, store: ModelStore, own: str = DEFAULT_POOL, pools: Collection[str] = ()) -> None:
        self.own, self.pools = own, frozenset({DEFAULT_POOL, *pools})
        self._store = store
        self._pools: dict[str, str] = {}
        self._left_s: dict[str, float] = {}

    def read(self, name: str) -> None:
        """Read the pool of a model from the store. Raises StorageUnreachable."""
        try:
            self.set(name, read_pool(self._store, name))
        except ModelRefused as error:
            log.warning("deployment_ignored", model=name, error=str(error))

    def set(self, name: str, pool: str) -> None:
        if self._pools.get(name) == self.own != pool:
            self._left_s[name] = time.monotonic()
        self._pools[name] = pool

    def pool_of(self, name: str) -> str:
        """Return the pool of a model as it was last read. The application may lack it."""
        return self._pools.get(name, DEFAULT_POOL)

    def serves(self, name: str) -> bool:
        """Return whether this pool answers for a model: it is placed here, or has moved away within KEEP_S.

        In the default pool, raises ModelNotReady if the application lacks the pool of the model.
        """
        pool = self.pool_of(name)
        if self.own == DEFAULT_POOL:
            require_pool(name, pool, self.pools)
        return pool == self.own or time.monotonic() - self._left_s.get(name, -KEEP_S) < KEEP_S
