"""How a replica reaches the rollout: `Rollouts` for its HTTP routes, `RayRollouts` on a cluster."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from typing import Any, Protocol, TypeVar

from model_store.errors import ModelNotReady, ResightError
from model_store.names import VersionId
from serve.rollout.operations import Operation, Outcome, asked
from serve.rollout.prove import Proof

T = TypeVar("T")


class Rollouts(Protocol):
    """What the routes of /v1/models need."""

    async def apply(self, operation: Operation, wait_s: float) -> Outcome:
        """Begin, and how it stands after so long at most."""
        ...

    async def outcome(self, outcome_id: str) -> Outcome | None: ...

    async def about(self, name: str) -> dict[str, Any]: ...

    async def sync(self) -> list[Outcome]: ...

    async def counts(self) -> dict[tuple[str, str], int]: ...

    async def refused(self) -> int: ...


class RayRollouts:
    """Over the cluster's `Rollout` actor. `holder` is the name of the actor that asks, if it loads models."""

    def __init__(self, actor: Any, holder: str = "") -> None:
        self._actor, self._holder = actor, holder

    async def apply(self, operation: Operation, wait_s: float) -> Outcome:
        """Raises Overloaded, StorageUnreachable."""
        new = asked(operation)  # the id is made here, since Ray may repeat the call
        accepted = _unless_error(await self._actor.ask.remote(new))
        ended: Outcome | None = await self._actor.wait.remote(new.id, wait_s)
        return ended or accepted

    async def outcome(self, outcome_id: str) -> Outcome | None:
        return await self._actor.wait.remote(outcome_id, 0.0)

    async def about(self, name: str) -> dict[str, Any]:
        return await self._actor.about.remote(name)

    async def sync(self) -> list[Outcome]:
        return await self._actor.sync.remote()

    async def counts(self) -> dict[tuple[str, str], int]:
        return await self._actor.counts.remote()

    async def refused(self) -> int:
        return await self._actor.refused.remote()

    async def prove(self, version: VersionId) -> Proof:
        """Return the proof, made now unless it is known. Raises ModelError, Overloaded."""
        return _unless_error(await self._reached(version, "prove", version))

    @contextlib.asynccontextmanager
    async def loading(self, version: VersionId) -> AsyncGenerator[None]:
        """Report the start and the end of a load in this process. Raises ModelError on entering."""
        _unless_error(await self._reached(version, "loading", version, self._holder))
        try:
            yield
        finally:
            self._actor.loaded.remote(version, self._holder)

    async def _reached(self, version: VersionId, method: str, *arguments: Any) -> Any:
        try:
            return await getattr(self._actor, method).remote(*arguments)
        except Exception as error:  # the actor is unavailable
            raise ModelNotReady(f"{version} cannot be proved now: {error}"[:500]) from error


def _unless_error(found: T | ResightError) -> T:
    if isinstance(found, ResightError):
        raise found
    return found
