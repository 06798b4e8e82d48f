"""Which pool of replicas each model lives in, as its deployment.json says.

look(name) reads it again; a file that is damaged changes nothing. A pool keeps a model that has moved away for
a while, until every replica knows where it is now: requests under way are not lost.
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


def require_pool(name: str, pool: str, pools: Collection[str]) -> None:
    """Raises ModelNotReady when a model wants a pool that the application has not."""
    if pool not in pools:
        raise ModelNotReady(
            f"{name} wants the pool '{pool}' (deployment.json), and the application has: "
            f"{', '.join(sorted(pools))}"
        )


class Placement:
    """As one replica sees it: `own` is its pool, `pools` are all that the application has."""

    def __init__(
        self, store: ModelStore, own: str = DEFAULT_POOL, pools: Collection[str] = ()
    ) -> None:
        self.own, self.pools = own, frozenset({DEFAULT_POOL, *pools})
        self._store = store
        self._pools: dict[str, str] = {}
        self._left_s: dict[str, float] = {}

    def look(self, name: str) -> None:
        """Read where a model lives. Raises StorageUnreachable."""
        try:
            self.set(name, read_pool(self._store, name))
        except ModelRefused as error:
            log.warning("deployment_ignored", model=name, error=str(error))

    def set(self, name: str, pool: str) -> None:
        if self._pools.get(name) == self.own != pool:
            self._left_s[name] = time.monotonic()
        self._pools[name] = pool

    def pool_of(self, name: str) -> str:
        """As it was last seen. The application may have no such pool."""
        return self._pools.get(name, DEFAULT_POOL)

    def is_here(self, name: str) -> bool:
        """Whether this pool answers for it: it lives here, or has just moved away. Raises ModelNotReady when
        it lives in a pool that there is not, which the default pool says.
        """
        pool = self.pool_of(name)
        if self.own == DEFAULT_POOL:
            require_pool(name, pool, self.pools)
        if pool == self.own:
            return True
        left_s = self._left_s.get(name)
        return left_s is not None and time.monotonic() - left_s < KEEP_S
