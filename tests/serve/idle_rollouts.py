"""A rollout that accepts every operation and does nothing, for tests of the routes."""

from __future__ import annotations

from typing import Any

from serve.rollout.operations import Operation, Outcome, new_outcome


class IdleRollouts:
    async def apply(self, operation: Operation, wait_s: float) -> Outcome:
        return new_outcome(operation).model_copy(update={"state": "done"})

    async def outcome(self, outcome_id: str) -> Outcome | None:
        return None

    async def about(self, name: str) -> dict[str, Any]:
        return {}

    async def sync(self) -> list[Outcome]:
        return []

    async def counts(self) -> tuple[dict[tuple[str, str], int], int]:
        return {}, 0
