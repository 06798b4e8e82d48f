"""Pools of replicas: the placement of each model in one of them, and what they serve.

`Placement.read` reads deployment.json again; a damaged file changes nothing. After a model has moved away, its old pool
continues to answer for KEEP_S, until every replica has been notified: no request is lost.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import structlog

from model_store.deployment import DEFAULT_POOL, read_pool
from model_store.errors import ModelNotReady, ModelRefused
from model_store.names import VersionId, get_first_model, parse_version
from model_store.store import ModelStore

if TYPE_CHECKING:
    from serve.models.pool_proxy import ForwardedAnswer, ForwardedRequest

KEEP_S = 10.0
"""Seconds for which a pool answers for a model that has moved to another one."""
POOL = "pool "
"""Prefix of the key in `failures` for a pool that does not answer."""
NO_MODEL, PENDING = "no model is loaded", "it is being proved or loaded"
"""Parts of failures that need no repair (`is_error`)."""
log = structlog.get_logger("resight.serve")


def is_error(failure: str) -> bool:
    """Return whether a failure needs a repair: false if no model is served yet, or it is about to be."""
    return NO_MODEL not in failure and PENDING not in failure


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

    def current(self, name: str) -> str:
        """Read the pool of a model again, and return it. Raises StorageUnreachable."""
        self.read(name)
        return self.pool_of(name)

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


@dataclass(frozen=True, slots=True)
class Serving:
    """Loaded versions, and by model or alias why it does not serve (`AliasPoller.errors`)."""

    loaded: tuple[str, ...] = ()
    failures: dict[str, str] = field(default_factory=dict[str, str])

    def plus(self, other: Serving) -> Serving:
        return Serving(self.loaded + other.loaded, self.failures | other.failures)

    def require_ready(self, store: str) -> None:
        """Raise ModelNotReady, with the failures, if nothing is loaded or a pool does not answer; models may fail."""
        reasons = [
            f"{label}: {why}" for label, why in self.failures.items() if not self.loaded or label.startswith(POOL)
        ]
        if reasons:
            raise ModelNotReady("; ".join(reasons))
        if not self.loaded:
            raise ModelNotReady(
                f"{NO_MODEL}: serve one of {store} with 'resight models promote NAME@VERSION'; if it has none, "
                f"add one with '{get_first_model()}'"
            )

    @property
    def versions(self) -> frozenset[VersionId]:
        return frozenset(map(parse_version, self.loaded))


class Pools(Protocol):
    """The other pools of the application, which answer for their models."""

    async def serving(self) -> Serving:
        """Return the loaded versions and failures of one replica of each pool."""
        ...

    async def answer(self, pool: str, request: ForwardedRequest) -> ForwardedAnswer:
        """Return the answer of a replica of the pool. Raises ModelNotReady."""
        ...


async def serving_everywhere(own: Serving, pools: Pools | None) -> Serving:
    """Return what this replica serves (`own`), and one replica of each other pool."""
    return own.plus(await pools.serving()) if pools else own
