"""The `Rollout` actor: one in a cluster, detached, restarted by Ray; it moves every alias.

ask(operation) -> Outcome at once; wait(id) -> how it ended. Between operations it looks at the store and
follows what another hand has changed. Its state is in the store, so a restart loses nothing but the
outcomes that were not waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter, OrderedDict
from typing import Any

import ray
import structlog
from ray import serve as ray_serve
from ray.exceptions import GetTimeoutError, OutOfMemoryError, RayTaskError, WorkerCrashedError

from model_store.deployment import read_pool
from model_store.errors import ModelNotFound, ModelNotReady, ModelRefused, ResightError
from model_store.inference_key import sha256_hex
from model_store.names import VersionId
from model_store.store import READY, ModelStore
from serve.app_names import APP, DEPLOYMENT
from serve.handle import RayReplicas
from serve.logs import configure_logs
from serve.priority import give_way_all
from serve.rollout.apart import ProvingGround
from serve.rollout.events import record
from serve.rollout.follow import Follower
from serve.rollout.operations import Operation, Outcome, asked
from serve.rollout.prove import Proof, prove
from serve.rollout.state import AliasState, read_state
from serve.rollout.steps import Rollout
from serve.settings import DetectArgs, Settings

NAME, NAMESPACE = "resight-rollout", "resight"
OUTCOMES_KEPT = 500
log = structlog.get_logger("resight.rollout")


@ray.remote(num_cpus=0, max_calls=1, max_retries=0)
def _prove(url: str, version: VersionId, threads: int) -> Proof:
    """In a process that ends with the call, on a node of a pool's hardware."""
    give_way_all()
    return prove(url, version, threads)


class RolloutActor:
    """Async: calls interleave, operations do not."""

    def __init__(self, args: DetectArgs) -> None:
        configure_logs()
        give_way_all()
        self._proving_ground = ProvingGround()
        self._follow_arguments(args)
        self._proved: dict[str, int] = {}
        self._outcomes: OrderedDict[str, Outcome] = OrderedDict()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._one_at_a_time = asyncio.Lock()
        self._counts: Counter[tuple[str, str]] = Counter()
        loop = asyncio.get_running_loop()
        self._polling = loop.create_task(self._poll())
        if (
            ray.get_runtime_context().was_current_actor_reconstructed
        ):  # with the first arguments there were
            self._catching_up = loop.create_task(self._catch_up())

    async def reconfigure(self, args: DetectArgs) -> None:
        """The application was deployed with these: the actor outlives its replicas."""
        if args != self._args:
            self._follow_arguments(args)

    async def prove(self, version: VersionId) -> int | ResightError:
        """Bytes that a version takes that some replica wants outside a rollout; proved once for the same files.
        Or what it is refused with: Ray would wrap what is raised.
        """
        place = f"{version.name}/{version.version}/{READY}"
        try:
            ready = await asyncio.to_thread(self._store.folder.read, place)
            mark = f"{version} {sha256_hex(ready)}"
            if mark not in self._proved:
                proof = await asyncio.to_thread(self._prove_apart, version)
                self._proved[mark] = proof.rss_bytes
            return self._proved[mark]
        except FileNotFoundError:
            return ModelNotFound(f"{version} is not READY in {self._store.url}")
        except ResightError as error:
            return error

    async def _catch_up(self) -> None:
        """Ask a replica for the arguments of now."""
        detectors = ray_serve.get_deployment_handle(DEPLOYMENT, APP)
        while True:
            try:
                await self.reconfigure(await detectors.arguments.remote())
                return
            except Exception as error:  # none is up yet, say
                log.warning("arguments_unknown", error=str(error)[:300])
                await asyncio.sleep(self._args.poll_s)

    def _follow_arguments(self, args: DetectArgs) -> None:
        self._args = args
        store = self._store = ModelStore(args.models or Settings().models_url)
        replicas = RayReplicas(lambda name: read_pool(store, name), args.pools, args.load_timeout_s)
        self._rollout = Rollout(store, replicas, self._prove_apart)
        self._follower = Follower(store)

    async def ask(self, operation: Operation) -> Outcome:
        """Begin; it waits for its turn."""
        outcome = asked(operation)
        self._outcomes[outcome.id] = outcome
        while len(self._outcomes) > OUTCOMES_KEPT:
            self._outcomes.popitem(last=False)
        self._tasks[outcome.id] = asyncio.create_task(self._do(outcome))
        return outcome

    async def wait(self, outcome_id: str, timeout_s: float) -> Outcome | None:
        """How it stands when it has ended, or when the time is over; None for one not known."""
        task = self._tasks.get(outcome_id)
        if task is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(task), timeout_s)
        return self._outcomes.get(outcome_id)

    async def sync(self) -> list[Outcome]:
        """Follow the alias files now; what that took, ended."""
        operations = await asyncio.to_thread(self._follower.due)
        outcomes = [await self.ask(operation) for operation in operations]
        ended = [await self.wait(one.id, self._args.load_timeout_s) for one in outcomes]
        return [one for one in ended if one is not None]

    async def about(self, name: str) -> dict[str, Any]:
        """What is under way for a model, and why its aliases do not follow their file."""
        open_states = ("waiting", "running")
        mine = [o for o in self._outcomes.values() if o.operation.name == name]
        return {
            "under_way": [o for o in mine if o.state in open_states],
            "failures": self._follower.failures(name),
        }

    async def counts(self) -> dict[tuple[str, str], int]:
        """Operations by kind and outcome since this actor started."""
        return dict(self._counts)

    async def refused(self) -> int:
        """Aliases whose file names a version that was refused."""
        return self._follower.refused

    async def _do(self, outcome: Outcome) -> None:
        async with self._one_at_a_time:
            started = time.perf_counter()
            operation = outcome.operation
            self._outcomes[outcome.id] = outcome.model_copy(update={"state": "running"})
            before = await asyncio.to_thread(self._alias, operation)
            try:
                detail = await asyncio.to_thread(self._rollout.apply, operation)
                change: dict[str, Any] = {"state": "done", "detail": detail}
            except Exception as error:  # the operation is refused; the actor goes on
                kind = type(error).__name__
                detail = str(error) if isinstance(error, ResightError) else f"{kind}: {error}"
                change = {"state": "refused", "detail": detail[:2000], "error": kind}
            change["seconds"] = round(time.perf_counter() - started, 3)
            done = outcome.model_copy(update=change)
            self._counts[operation.kind, done.state] += 1
            after = await asyncio.to_thread(self._alias, operation)
            is_news = self._follower.is_news(done)
            self._follower.ended(done)
            log.info("rollout", **done.model_dump(mode="json"))
            try:
                if is_news:
                    await asyncio.to_thread(record, self._store, done, before, after)
            except Exception as error:
                log.error("event_not_recorded", error=str(error), outcome=done.id)
            self._outcomes[outcome.id] = done
            self._tasks.pop(outcome.id, None)

    def _alias(self, operation: Operation) -> AliasState | None:
        try:
            return read_state(self._store, operation.name).aliases.get(operation.alias)
        except Exception:  # only for the event log, and whatever it is, the operation says it too
            return None

    def _prove_apart(self, version: VersionId) -> Proof:
        """In a throw-away process, on a node that its pool's `resources` choose, else on this one. Raises
        ModelError with what the process said, or how it ended.
        """
        hardware = self._args.pools.get(read_pool(self._store, version.name), self._args)
        if not hardware.resources:
            limit_s = self._args.load_timeout_s
            return self._proving_ground.prove(self._store.url, version, hardware.threads, limit_s)
        there = _prove.options(resources=hardware.resources)  # GPUs belong to the replicas
        pending: Any = there.remote(self._store.url, version, hardware.threads)
        limit_s = self._args.load_timeout_s
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

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(self._args.poll_s)
            try:
                await self.sync()
            except Exception as error:  # the store is away, say: what serves goes on
                log.warning("store_unreadable", store=self._store.url, error=str(error))


def start_rollout(args: DetectArgs) -> Any:
    """The cluster's actor; made if there is none yet."""
    actor: Any = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(RolloutActor)
    options = {"name": NAME, "namespace": NAMESPACE, "lifetime": "detached", "get_if_exists": True}
    return actor.options(**options).remote(args)
