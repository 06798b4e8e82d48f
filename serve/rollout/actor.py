"""The `Rollout` actor: one in a cluster, detached, restarted by Ray; it moves every alias.

ask(outcome) -> Outcome at once; wait(id) -> how it ended. Between operations it reads the store and follows aliases
that were changed there. Accepted operations are in the store (`accepted.py`): the next process completes them, or
records why not. It proves the versions that replicas load (`proofs.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter, OrderedDict
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import ray
import structlog
from ray import serve as ray_serve
from ray.exceptions import GetTimeoutError, OutOfMemoryError, RayTaskError, WorkerCrashedError

from model_store.deployment import read_pool
from model_store.errors import ModelNotReady, ModelRefused, Overloaded, ResightError
from model_store.names import VersionId
from model_store.storage import Folder
from model_store.store import ModelStore
from serve.app_names import APP, DEPLOYMENT
from serve.handle import RayReplicas, is_alive
from serve.logs import configure_logs
from serve.priority import give_way_all
from serve.rollout.accepted import Accepted, forget, keep, open_operations, outcome_of
from serve.rollout.apart import ProvingGrounds
from serve.rollout.events import event_of, record
from serve.rollout.follow import Follower
from serve.rollout.operations import Operation, Outcome, asked
from serve.rollout.proofs import Proofs
from serve.rollout.prove import Proof, prove
from serve.rollout.state import AliasState, read_state
from serve.rollout.steps import Begun, Rollout
from serve.settings import DetectArgs, Pool, Settings

NAME, NAMESPACE = "resight-rollout", "resight"
OUTCOMES_KEPT = 500
MOST_OPEN = 32
"""Operations at a time, each with a thread of its own: none waits for the proof of another."""
RESUME_S = 600.0
"""Maximum age of an operation that a successor still completes."""
log = structlog.get_logger("resight.rollout")


@ray.remote(num_cpus=0, max_calls=1, max_retries=0)
def _prove(url: str, version: VersionId, threads: int, digest: str) -> Proof:
    """In a process that ends with the call, on a node of a pool's hardware."""
    give_way_all()
    return prove(url, version, threads, digest)


class RolloutActor:
    """Async: calls interleave, and so do operations (`Rollout`)."""

    def __init__(self, args: DetectArgs) -> None:
        configure_logs()
        give_way_all()
        self._loop = asyncio.get_running_loop()
        self._threads = ThreadPoolExecutor(MOST_OPEN, "operation")
        self._grounds = ProvingGrounds()
        self._outcomes: OrderedDict[str, Outcome] = OrderedDict()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._counts: Counter[tuple[str, str]] = Counter()
        self._background: set[asyncio.Task[None]] = set()
        self._works = False
        self._follow_arguments(args)
        if (
            ray.get_runtime_context().was_current_actor_reconstructed
        ):  # with the first arguments there were
            self._start(self._catch_up())

    async def reconfigure(self, args: DetectArgs) -> None:
        """The application was deployed with these: the actor outlives its replicas."""
        if args != self._args:
            self._follow_arguments(args)

    async def work(self) -> None:
        """Begin to follow the store, and complete operations that a predecessor left. Called when a replica serves."""
        if not self._works:
            self._works = True
            self._start(self._poll())
            self._start(self._resume())

    async def prove(self, version: VersionId) -> Proof | ResightError:
        """Return the proof that a replica needs to load a version, or the error: Ray would wrap a raised one."""
        try:
            return await self._proofs.of(version)
        except ResightError as error:
            return error

    async def loading(self, version: VersionId, holder: str) -> ResightError | None:
        """Record that `holder`, a replica's actor by its name, begins to load it."""
        try:
            await self._proofs.loading(version, holder)
        except ResightError as error:
            return error

    async def loaded(self, version: VersionId, holder: str) -> None:
        with contextlib.suppress(ResightError):  # at worst it is proved again when the holder ends
            await self._proofs.loaded(version, holder)

    async def _catch_up(self) -> None:
        """Ask a replica for the current arguments."""
        detectors = ray_serve.get_deployment_handle(DEPLOYMENT, APP)
        while True:
            try:
                await self.reconfigure(await detectors.arguments.remote())
                await self.work()
                return
            except Exception as error:  # none is up yet, say
                log.warning("arguments_unknown", error=str(error)[:300])
                await asyncio.sleep(self._args.poll_s)

    def _follow_arguments(self, args: DetectArgs) -> None:
        self._args = args
        store = self._store = ModelStore(args.models or Settings().models_url)
        replicas = RayReplicas(lambda name: read_pool(store, name), args.pools, args.load_timeout_s)
        self._rollout = Rollout(store, replicas, self._proved)
        self._follower = Follower(store)
        home = Folder(str(Settings().home_path / "proofs"))
        self._proofs = Proofs(store, home, self._prove_apart, self._hardware, is_alive)

    async def ask(self, outcome: Outcome) -> Outcome | ResightError:
        """Begin an operation, once for each id. It is in the store before this returns. Overloaded and
        StorageUnreachable are returned: Ray would wrap a raised error.
        """
        if outcome.id in self._outcomes:
            return self._outcomes[outcome.id]
        if len(self._tasks) >= MOST_OPEN:
            return Overloaded(f"{MOST_OPEN} operations are under way", 10.0)
        try:
            begun = await asyncio.to_thread(self._rollout.begin, outcome.operation)
        except ResightError:  # the operation is refused with it
            begun = Begun(operation=outcome.operation)
        accepted = Accepted(outcome=outcome, begun=begun)
        try:
            if outcome.operation.kind != "follow":  # aliases.json itself causes a follow again
                accepted = await asyncio.to_thread(keep, self._store, accepted)
        except ResightError as error:
            return error
        return self._begin(accepted)

    async def wait(self, outcome_id: str, timeout_s: float) -> Outcome | None:
        """Return the outcome when it has ended or the time is over; None for an id that was never accepted."""
        task = self._tasks.get(outcome_id)
        if task is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(task), timeout_s)
        if outcome_id in self._outcomes:
            return self._outcomes[outcome_id]
        with contextlib.suppress(ResightError):
            return await asyncio.to_thread(outcome_of, self._store, outcome_id)

    async def sync(self) -> list[Outcome]:
        """Follow the alias files now; what that took, ended."""
        await self._follow()
        ids = [one.id for one in self._open() if one.operation.kind == "follow"]
        ended = [await self.wait(one, self._args.load_timeout_s) for one in ids]
        return [one for one in ended if one is not None]

    async def about(self, name: str) -> dict[str, Any]:
        """What is under way for a model, and why its aliases do not follow their file."""
        return {
            "under_way": [one for one in self._open() if one.operation.name == name],
            "failures": self._follower.failures(name),
        }

    async def counts(self) -> dict[tuple[str, str], int]:
        """Operations by kind and outcome since this actor started."""
        return dict(self._counts)

    async def refused(self) -> int:
        """Aliases whose file names a version that was refused."""
        return self._follower.refused

    def _open(self) -> list[Outcome]:
        return [self._outcomes[one] for one in self._tasks if one in self._outcomes]

    def _start(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def _begin(self, accepted: Accepted) -> Outcome:
        """Begin an operation, once for each id: Ray repeats calls, and what is in the store is resumed."""
        outcome = accepted.outcome
        if outcome.id in self._outcomes:
            return self._outcomes[outcome.id]
        self._outcomes[outcome.id] = outcome
        while len(self._outcomes) > OUTCOMES_KEPT:
            self._outcomes.popitem(last=False)
        self._tasks[outcome.id] = self._loop.create_task(self._do(outcome, accepted.begun))
        return outcome

    async def _do(self, outcome: Outcome, begun: Begun) -> None:
        started, operation = time.perf_counter(), outcome.operation
        self._outcomes[outcome.id] = outcome.model_copy(update={"state": "running"})
        before = await asyncio.to_thread(self._alias, operation)
        try:
            detail = await self._loop.run_in_executor(self._threads, self._rollout.apply, begun)
            change: dict[str, Any] = {"state": "done", "detail": detail}
        except Exception as error:  # the operation is refused; the actor goes on
            kind = type(error).__name__
            detail = str(error) if isinstance(error, ResightError) else f"{kind}: {error}"
            change = {"state": "refused", "detail": detail[:2000], "error": kind}
        change["seconds"] = round(time.perf_counter() - started, 3)
        await self._end(outcome.model_copy(update=change), before)
        self._tasks.pop(outcome.id, None)

    async def _end(self, done: Outcome, before: AliasState | None) -> None:
        """Count, log and record it."""
        operation = done.operation
        self._counts[operation.kind, done.state] += 1
        after = await asyncio.to_thread(self._alias, operation)
        is_news = self._follower.is_news(done)
        self._follower.ended(done)
        log.info("rollout", **done.model_dump(mode="json"))
        if is_news and not await self._recorded(done, before, after):
            self._start(self._record_later(done, before, after))
        self._outcomes[done.id] = done

    async def _recorded(
        self, done: Outcome, before: AliasState | None, after: AliasState | None
    ) -> bool:
        try:
            await asyncio.to_thread(record, self._store, done, before, after)
            await asyncio.to_thread(forget, self._store, done)
            return True
        except Exception as error:
            log.error("event_not_recorded", error=str(error), outcome=done.id)
            return False

    async def _record_later(
        self, done: Outcome, before: AliasState | None, after: AliasState | None
    ) -> None:
        deadline = time.monotonic() + RESUME_S
        while time.monotonic() < deadline:
            await asyncio.sleep(self._args.poll_s)
            if await self._recorded(done, before, after):
                return

    async def _resume(self) -> None:
        """Complete the operations that a predecessor accepted; record those that are too old as not done."""
        while True:
            try:
                found = await asyncio.to_thread(self._left_open)
                break
            except Exception as error:  # the store is unavailable, for example
                log.warning("operations_unreadable", store=self._store.url, error=str(error))
                await asyncio.sleep(self._args.poll_s)
        for accepted in found:
            outcome = accepted.outcome
            age_s = (datetime.now(UTC) - outcome.asked_at).total_seconds()
            if outcome.id in self._outcomes:
                continue
            if age_s < RESUME_S:
                self._begin(accepted)
                continue
            detail = f"the cluster ended before this was done; it was asked for {age_s:.0f} s ago: ask again"
            change = {"state": "refused", "detail": detail, "error": ModelNotReady.__name__}
            await self._end(outcome.model_copy(update=change), accepted.begun.before)

    def _left_open(self) -> list[Accepted]:
        found: list[Accepted] = []
        for accepted in open_operations(self._store):
            outcome = accepted.outcome
            if event_of(self._store, outcome.operation.name, outcome.id):
                forget(self._store, outcome)
            else:
                found.append(accepted)
        return found

    def _alias(self, operation: Operation) -> AliasState | None:
        try:
            return read_state(self._store, operation.name).aliases.get(operation.alias)
        except (
            Exception
        ):  # only for the event log, and whatever it is, the operation reports it too
            return None

    def _proved(self, version: VersionId) -> Proof:
        """Prove a version, from a thread of an operation; also if it was refused a moment ago."""
        proof = self._proofs.of(version, again=True)
        return asyncio.run_coroutine_threadsafe(proof, self._loop).result()

    def _pool(self, name: str) -> Pool:
        return self._args.pools.get(read_pool(self._store, name), self._args)

    def _hardware(self, name: str) -> dict[str, object]:
        pool = self._pool(name)
        return {"resources": pool.resources, "gpus": pool.num_gpus, "threads": pool.threads}

    def _prove_apart(self, version: VersionId, digest: str) -> Proof:
        """In a throw-away process, on a node that its pool's `resources` choose, else on this one. Raises
        ModelError with what the process said, or how it ended.
        """
        hardware, limit_s = self._pool(version.name), self._args.load_timeout_s
        if not hardware.resources:
            url = self._store.url
            return self._grounds.prove(url, version, hardware.threads, limit_s, digest)
        there = _prove.options(resources=hardware.resources)  # GPUs belong to the replicas
        pending: Any = there.remote(self._store.url, version, hardware.threads, digest)
        try:
            return ray.get(pending, timeout=limit_s)
        except GetTimeoutError:
            ray.cancel(pending, force=True)
            raise ModelNotReady(f"{version} did not load and probe within {limit_s:g} s") from None
        except (WorkerCrashedError, OutOfMemoryError) as error:
            raise ModelRefused(f"{version} ended the process that loaded it: {error}") from error
        except RayTaskError as error:
            if isinstance(error.cause, ResightError):
                raise error.cause from None
            raise ModelRefused(f"{version} cannot be loaded: {error.cause!r}"[:1000]) from error

    async def _follow(self) -> None:
        """Begin the operations that the alias files need and that do not run yet. Raises StorageUnreachable."""
        due = await asyncio.to_thread(self._follower.due)
        open_ = [one.operation for one in self._open()]
        new = [operation for operation in due if operation not in open_]
        for operation in new[: max(0, MOST_OPEN // 2 - len(open_))]:  # the rest is for requests
            await self.ask(asked(operation))

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(self._args.poll_s)
            try:
                await self._follow()
            except Exception as error:  # the store is away, say: what serves goes on
                log.warning("store_unreadable", store=self._store.url, error=str(error))


def start_rollout(args: DetectArgs) -> Any:
    """The cluster's actor; made if there is none yet."""
    actor: Any = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(RolloutActor)
    options = {"name": NAME, "namespace": NAMESPACE, "lifetime": "detached", "get_if_exists": True}
    return actor.options(**options).remote(args)
