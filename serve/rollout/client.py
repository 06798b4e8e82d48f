"""Clients of the rollout: `RolloutClient` for the routes and loads of a replica, `apply_offline` without a host."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

from model_store.errors import SOON_S, ModelNotReady, ResightError, StorageError
from model_store.names import VersionId
from model_store.store import ModelStore
from serve.rollout.operations import Operation, Outcome, new_outcome, record
from serve.rollout.sandbox import Proof, prove
from serve.rollout.state import ModelState, read_state
from serve.rollout.steps import Rollout


class RolloutClient:
    """Calls the operator of its host by `call(method, *arguments)`. `holder` is the name of the calling process."""

    def __init__(self, call: Callable[..., Awaitable[Any]], holder: str = "") -> None:
        self._call, self._holder = call, holder
        self._loads: set[asyncio.Future[Any]] = set()

    async def apply(self, operation: Operation, wait_s: float) -> Outcome:
        """Begin an operation; return its state at its end or after `wait_s`. Raises Overloaded, StorageUnreachable."""
        new = new_outcome(operation)  # the id is created here, since Ray may repeat the call
        accepted: Outcome = await self._call("ask", new)
        ended: Outcome | None = await self._call("wait", new.id, wait_s)
        return ended or accepted

    async def outcome(self, outcome_id: str) -> Outcome | None:
        return await self._call("wait", outcome_id, 0.0)

    async def about(self, name: str) -> dict[str, Any]:
        return await self._call("about", name)

    async def sync(self) -> list[Outcome]:
        return await self._call("sync")

    async def counts(self) -> tuple[dict[tuple[str, str], int], int]:
        return await self._call("counts")

    async def prove(self, version: VersionId) -> Proof:
        """Return the proof of a version; make it if there is none. Raises ModelError, Overloaded."""
        return await self._of_version("prove", version)

    @contextlib.asynccontextmanager
    async def loading(self, version: VersionId) -> AsyncGenerator[None]:
        """Report the start and the end of a load in this process. Raises ModelError on entering."""
        await self._of_version("loading", version, self._holder)
        try:
            yield
        finally:
            told = asyncio.ensure_future(self._call("loaded", version, self._holder))
            self._loads.add(told)
            told.add_done_callback(self._loads.discard)
            told.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def _of_version(self, method: str, version: VersionId, *arguments: Any) -> Any:
        try:
            return await self._call(method, version, *arguments)
        except ResightError:
            raise
        except Exception as error:  # the operator is unavailable
            raise ModelNotReady(f"{version} cannot be proved now: {error}"[:500], SOON_S) from error


class NoReplicas:
    """Replicas of a cluster that does not run."""

    def holds(self, version: VersionId, digest: str) -> bool:
        return False

    def ensure(self, version: VersionId, digest: str) -> None:
        return None

    def activate(self, name: str, state: ModelState, version: str | None = None) -> None:
        return None

    def release(self, version: VersionId) -> None:
        return None


def apply_offline(store: ModelStore, operation: Operation) -> Outcome:
    """Apply an operation and record it in the event log. Raises ResightError if it is refused."""
    started = time.perf_counter()
    outcome = new_outcome(operation)
    before = read_state(store, operation.name).aliases.get(operation.alias)
    rollout = Rollout(store, NoReplicas(), lambda version: prove(store.url, version, threads=1))
    try:
        detail = rollout.apply(rollout.prepare(operation))
    except ResightError as error:
        change = {"state": "refused", "detail": str(error), "error": type(error).__name__}
        with contextlib.suppress(StorageError):  # the command reports the refusal
            record(store, outcome.model_copy(update=change), before, before)
        raise
    seconds = round(time.perf_counter() - started, 3)
    done = outcome.model_copy(update={"state": "done", "detail": detail, "seconds": seconds})
    record(store, done, before, read_state(store, operation.name).aliases.get(operation.alias))
    return done
