"""How a replica reaches the rollout: `Rollouts` for its HTTP routes, `RayRollouts` on a cluster."""

from __future__ import annotations

from typing import Any, Protocol

from model_store.errors import ModelNotReady, ResightError
from model_store.names import VersionId
from serve.rollout.operations import Operation, Outcome


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
    """Over the cluster's `Rollout` actor."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    async def apply(self, operation: Operation, wait_s: float) -> Outcome:
        asked: Outcome = await self._actor.ask.remote(operation)
        ended: Outcome | None = await self._actor.wait.remote(asked.id, wait_s)
        return ended or asked

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

    async def prove(self, version: VersionId) -> int:
        """Bytes that the version takes; proved now unless it was. Raises ModelError."""
        try:
            found: int | ResightError = await self._actor.prove.remote(version)
        except Exception as error:  # the actor is away
            raise ModelNotReady(f"{version} cannot be proved now: {error}"[:500]) from error
        if isinstance(found, ResightError):
            raise found
        return found
