"""Move the aliases of a host: one `RolloutOperator` in a cluster (`serve/cluster/rollout_actor.py`) or in a process.

`ask(outcome)` accepts an operation and returns at once; `wait(id)` returns its outcome. The operator polls the store
and follows aliases that were changed there. Accepted operations are in the store (`operations.py`): after a restart,
they are completed, or it is recorded why not. It proves the versions that replicas load (`proofs.py`). No Ray.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import Counter, OrderedDict
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from typing import Any, Protocol

import structlog

from model_store.errors import ModelNotReady, Overloaded, ResightError
from model_store.listed_store import ListedStore
from model_store.names import VersionId
from model_store.storage import Folder
from model_store.store import ModelStore
from serve.models.pools import Placement
from serve.rollout.operations import (
    Accepted,
    Operation,
    Outcome,
    PreparedOperation,
    new_outcome,
    open_operations,
    outcome_of,
    record,
    remove_operation,
    save_operation,
)
from serve.rollout.proofs import Proofs
from serve.rollout.sandbox import Proof
from serve.rollout.state import AliasState, read_state
from serve.rollout.steps import Replicas, Rollout
from serve.settings import DetectArgs, Pool, Settings

OUTCOMES_KEPT = 500
MAX_OPERATIONS = 32
"""Maximum concurrent operations, one thread each: none waits for the proof of another."""
RESUME_S = 600.0
"""Maximum age of an operation that a restarted actor completes."""
RETRY_S = 60.0
"""Time after which a refused operation is due again, unless the version's files or the alias change before."""
log = structlog.get_logger("resight.rollout")


class RolloutHost(Protocol):
    """Interface of the host of the replicas: a cluster, or one process."""

    def replicas(self, store: ModelStore, args: DetectArgs) -> Replicas: ...

    def is_alive(self, holder: str) -> bool:
        """Return whether the process of a replica, given by its name, still runs."""
        ...

    def prove(self, url: str, version: VersionId, pool: Pool, limit_s: float, digest: str) -> Proof:
        """Prove a version in a separate process on a machine of its pool. Raises ModelError, also if that ends."""
        ...


class RolloutOperator:
    """Use it on one event loop: calls interleave, and so do operations (`Rollout`)."""

    def __init__(self, args: DetectArgs, host: RolloutHost) -> None:
        self._loop, self._host = asyncio.get_running_loop(), host
        self._threads = ThreadPoolExecutor(MAX_OPERATIONS, "operation")
        self._outcomes: OrderedDict[str, Outcome] = OrderedDict()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._counts: Counter[tuple[str, str]] = Counter()
        self._background: set[asyncio.Task[None]] = set()
        self._polls = False
        self._follow_arguments(args)

    async def reconfigure(self, args: DetectArgs) -> None:
        """Apply the arguments of a new deployment: the actor outlives the replicas."""
        if args != self._args:
            self._follow_arguments(args)

    async def work(self) -> None:
        """Start to follow the store, and complete operations of a predecessor. Called when a replica serves."""
        if not self._polls:
            self._polls = True
            self._start(self._poll())
            self._start(self._resume())

    async def prove(self, version: VersionId) -> Proof:
        """Return the proof that a replica needs to load a version. Raises as `Proofs.of`."""
        return await self._proofs.of(version)

    async def loading(self, version: VersionId, holder: str) -> None:
        """Record that `holder`, the name of a replica's actor, begins to load a version. Raises ModelError."""
        await self._proofs.loading(version, holder)

    async def loaded(self, version: VersionId, holder: str) -> None:
        """Record the end of a load."""
        with contextlib.suppress(ResightError):  # at worst, it is proved again when the holder ends
            await self._proofs.loaded(version, holder)

    async def ended(self, holder: str) -> None:
        """Record that `holder` ends on request, for which the versions that it loads are not blamed."""
        await self._proofs.ended(holder)

    def stop(self) -> None:
        """Stop to follow the store. Operations that are not complete are completed by a successor."""
        for task in (*self._background, *self._tasks.values()):
            task.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _follow_arguments(self, args: DetectArgs) -> None:
        self._args = args
        store = self._store = ModelStore(args.models or Settings().models_url)
        self._rollout = Rollout(store, self._host.replicas(store, args), self._proved)
        self._watcher, self._placement = AliasWatcher(store), Placement(store)
        home = Folder(str(Settings().home_path / "proofs"))
        self._proofs = Proofs(store, home, self._prove_isolated, self._pool, self._host.is_alive)

    async def ask(self, outcome: Outcome) -> Outcome:
        """Begin an operation, once for each id, and save it in the store. Raises Overloaded, StorageUnreachable."""
        if outcome.id in self._outcomes:
            return self._outcomes[outcome.id]
        if len(self._tasks) >= MAX_OPERATIONS:
            raise Overloaded(f"{MAX_OPERATIONS} operations are running, which is the limit", 10.0)
        try:
            prepared = await asyncio.to_thread(self._rollout.prepare, outcome.operation)
        except ResightError:  # `apply` fails with the same error
            prepared = PreparedOperation(operation=outcome.operation)
        accepted = Accepted(outcome=outcome, prepared=prepared)
        if outcome.operation.kind != "follow":  # a lost one is created again from aliases.json
            accepted = await asyncio.to_thread(save_operation, self._store, accepted)
        return self._start_operation(accepted)

    async def wait(self, outcome_id: str, timeout_s: float) -> Outcome | None:
        """Return the outcome after the operation has ended, or after `timeout_s`; None for an unknown id."""
        task = self._tasks.get(outcome_id)
        if task is not None:
            await asyncio.wait([task], timeout=timeout_s)
        if outcome_id in self._outcomes:
            return self._outcomes[outcome_id]
        with contextlib.suppress(ResightError):
            return await asyncio.to_thread(outcome_of, self._store, outcome_id)

    async def sync(self) -> list[Outcome]:
        """Follow the alias files now; return the outcomes of the operations, which have ended."""
        await self._follow()
        ids = [o.id for o in self._open() if o.operation.kind == "follow"]
        return list(filter(None, [await self.wait(id_, self._args.load_timeout_s) for id_ in ids]))

    async def about(self, name: str) -> dict[str, Any]:
        """Return the running operations of a model, and why aliases do not follow their file."""
        return {
            "under_way": [o for o in self._open() if o.operation.name == name],
            "failures": self._watcher.failures(name),
        }

    async def counts(self) -> tuple[dict[tuple[str, str], int], int]:
        """Return the operations by (kind, outcome) since the start, and the aliases that do not follow their file."""
        return dict(self._counts), self._watcher.refused

    def _open(self) -> list[Outcome]:
        return [self._outcomes[id_] for id_ in self._tasks if id_ in self._outcomes]

    def _start(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def _start_operation(self, accepted: Accepted) -> Outcome:
        """Start an operation, once for each id: Ray repeats calls, and `_resume` reads the same operations."""
        outcome = accepted.outcome
        if outcome.id in self._outcomes:
            return self._outcomes[outcome.id]
        self._outcomes[outcome.id] = outcome
        while len(self._outcomes) > OUTCOMES_KEPT:
            self._outcomes.popitem(last=False)
        task = self._loop.create_task(self._do(outcome, accepted.prepared))
        self._tasks[outcome.id] = task
        task.add_done_callback(partial(self._drop_task, outcome.id))
        return outcome

    def _drop_task(self, outcome_id: str, task: asyncio.Task[None]) -> None:
        """Drop a task that has ended; also its outcome if it ended with an error: the store has the operation."""
        del self._tasks[outcome_id]
        if error := "cancelled" if task.cancelled() else task.exception():
            self._outcomes.pop(outcome_id, None)
            log.error("operation_failed", id=outcome_id, error=repr(error))

    async def _do(self, outcome: Outcome, prepared: PreparedOperation) -> None:
        started, operation = time.perf_counter(), outcome.operation
        self._outcomes[outcome.id] = outcome.model_copy(update={"state": "running"})
        before = await asyncio.to_thread(self._alias, operation)
        try:
            detail = await self._loop.run_in_executor(self._threads, self._rollout.apply, prepared)
            change: dict[str, Any] = {"state": "done", "detail": detail}
        except Exception as error:  # the operation is refused; the operator must survive
            kind = type(error).__name__
            detail = str(error) if isinstance(error, ResightError) else f"{kind}: {error}"
            change = {"state": "refused", "detail": detail[:2000], "error": kind}
        change["seconds"] = round(time.perf_counter() - started, 3)
        await self._end(outcome.model_copy(update=change), before)

    async def _end(self, done: Outcome, before: AliasState | None) -> None:
        """Count, log and record an operation that has ended; if the store is unavailable, record it later."""
        self._counts[done.operation.kind, done.state] += 1
        after = await asyncio.to_thread(self._alias, done.operation)
        is_new = await asyncio.to_thread(self._watcher.note, done)
        log.info("rollout", **done.model_dump(mode="json"))

        async def recorded() -> bool:
            try:
                await asyncio.to_thread(record, self._store, done, before, after)
                await asyncio.to_thread(remove_operation, self._store, done)
                return True
            except Exception as error:
                log.error("event_not_recorded", error=str(error), outcome=done.id)
                return False

        async def record_later() -> None:
            deadline = time.monotonic() + RESUME_S
            while time.monotonic() < deadline:
                await asyncio.sleep(self._args.poll_s)
                if await recorded():
                    return

        if is_new and not await recorded():
            self._start(record_later())
        self._outcomes[done.id] = done

    async def _resume(self) -> None:
        """Complete the operations that a predecessor accepted; record those that are too old as refused.

        Models that cannot be read are read again later, and delay no others.
        """
        names: list[str] | None = None
        while names != []:
            left_open, names = await asyncio.to_thread(self._left_open, names)
            for accepted in left_open:
                outcome = accepted.outcome
                age_s = (datetime.now(UTC) - outcome.asked_at).total_seconds()
                if age_s < RESUME_S:
                    self._start_operation(accepted)
                elif outcome.id not in self._outcomes:
                    detail = f"the cluster ended before this was done; it was requested {age_s:.0f} s ago: repeat it"
                    change = {"state": "refused", "detail": detail, "error": ModelNotReady.__name__}
                    await self._end(outcome.model_copy(update=change), accepted.prepared.before)
            if names != []:  # some cannot be read, or (None) the store
                await asyncio.sleep(self._args.poll_s)

    def _left_open(self, names: list[str] | None) -> tuple[list[Accepted], list[str] | None]:
        """Return the open operations of these models, or of all for None, and those of them that cannot be read."""
        left_open: list[Accepted] = []
        unreadable: list[str] = []
        try:
            names = self._store.names() if names is None else names
        except Exception as error:  # the store is unavailable, for example
            log.warning("operations_unreadable", store=self._store.url, error=str(error))
            return [], None
        for name in names:
            try:
                left_open += open_operations(self._store, name)
            except Exception as error:
                log.warning("operations_unreadable", store=self._store.url, model=name, error=str(error))
                unreadable.append(name)
        return left_open, unreadable

    def _alias(self, operation: Operation) -> AliasState | None:
        try:
            return read_state(self._store, operation.name).aliases.get(operation.alias)
        except Exception:  # needed for the event log only; the operation reports the error
            return None

    def _proved(self, version: VersionId) -> Proof:
        """Prove a version, from the thread of an operation; also if it was refused recently."""
        return asyncio.run_coroutine_threadsafe(self._proofs.of(version, again=True), self._loop).result()

    def _pool(self, name: str) -> Pool:
        return self._args.pools.get(self._placement.current(name), self._args)

    def _prove_isolated(self, version: VersionId, digest: str) -> Proof:
        pool, limit_s = self._pool(version.name), self._args.load_timeout_s
        return self._host.prove(self._store.url, version, pool, limit_s, digest)

    async def _follow(self) -> None:
        """Begin the operations that the alias files require and that are not running. Raises StorageUnreachable."""
        due = await asyncio.to_thread(self._watcher.due)
        open_ = [outcome.operation for outcome in self._open()]
        new = [operation for operation in due if operation not in open_]
        with contextlib.suppress(Overloaded):  # the next poll begins them
            for operation in new[: max(0, MAX_OPERATIONS // 2 - len(open_))]:  # the others are for requests
                await self.ask(new_outcome(operation))

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(self._args.poll_s)
            try:
                await self._follow()
            except Exception as error:  # the store is unavailable, for example; serving continues
                log.warning("store_unreadable", store=self._store.url, error=str(error))


class AliasWatcher:
    """Finds due operations, and records refusals by (model, alias). Call `due` and `note` in threads."""

    def __init__(self, store: ModelStore) -> None:
        self._store, self._turn = ListedStore(store.url), threading.Lock()
        self._refused: dict[tuple[str, str], tuple[str, float, str]] = {}

    def due(self) -> list[Operation]:
        """Return the due operations of all models. Raises StorageUnreachable if the models cannot be listed."""
        operations: list[Operation] = []
        with self._turn:  # of a poll and a request, which share the list of files
            self._store.list_again()
            for name in sorted({*self._store.names(), *(model for model, _ in [*self._refused])}):
                with contextlib.suppress(ResightError):  # replicas report files that cannot be read
                    operations += self._due(name)
        return operations

    def note(self, outcome: Outcome) -> bool:
        """Record an outcome; return False if the last attempt to follow had the same version, files and refusal."""
        operation = outcome.operation
        place = (operation.name, operation.alias)
        if outcome.state != "refused":
            self._refused.pop(place, None)
            return True
        if operation.kind != "follow":
            return True
        mark = self._mark(VersionId(operation.name, str(operation.version)))
        last_mark, _, last = self._refused.get(place, ("", 0.0, ""))
        self._refused[place] = (mark, time.monotonic(), outcome.detail)
        return (last_mark, last) != (mark, outcome.detail)

    @property
    def refused(self) -> int:
        return len(self._refused)

    def failures(self, name: str) -> dict[str, str]:
        """Return alias to the reason why it does not follow aliases.json."""
        refused = sorted(self._refused.items())  # a copy: `due` may remove some now
        return {alias: detail for (model, alias), (_, _, detail) in refused if model == name}

    def _due(self, name: str) -> list[Operation]:
        """Return the due operations of a model. Raises ModelRefused if a file is damaged, StorageUnreachable."""
        wanted = self._store.aliases(name)
        serving = read_state(self._store, name).aliases
        for place in [*self._refused]:
            if place[0] == name and place[1] not in wanted:  # the alias or the model was removed
                self._refused.pop(place, None)
        operations: list[Operation] = []
        for alias, version in wanted.items():
            state = serving.get(alias)
            if state is None:  # the alias was removed between the two reads
                continue
            if state.since is not None and state.active == version:
                self._refused.pop((name, alias), None)
                continue
            mark, at_s, _ = self._refused.get((name, alias), ("", 0.0, ""))
            if mark != self._mark(VersionId(name, version)) or time.monotonic() - at_s >= RETRY_S:
                operations.append(Operation(kind="follow", name=name, alias=alias, version=version))
        return operations

    def _mark(self, version: VersionId) -> str:
        """Return a text that changes with the version and its files. Never raises."""
        return f"{version} {self._store.mark(version)}"
