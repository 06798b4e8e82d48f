"""Run the stage of a pass in Ray Data, as one chain, and yield its results as they arrive.

windows of the plan -> parts in the object store -> chunks (part, first row, rows) -> actors of its stage
-> tables of rows, in any order. Only numbers pass through Ray Data: a stage takes its rows from the
part, so that the memory of the driver does not grow with the archive.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator, Sequence
from typing import Any

import cv2
import pyarrow as pa
import ray
import ray.data
from ray.data import ActorPoolStrategy, DataContext
from ray.exceptions import ActorDiedError, ActorUnavailableError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

from batch.pipeline.stage import Stage, StageProcess
from batch.planning.plan import Plan
from batch.runs.heartbeat import heartbeat
from batch.runs.spec import PassSpec
from model_store.deployment import read_pool
from model_store.errors import ModelNotReady, ResightError
from model_store.machine import usable_cores
from model_store.store import ModelStore, ModelVersion
from serve.cluster.handles import RayReplicas, deployed_pools, handle_of
from serve.inference.chunks import Chunk
from serve.inference.os_priority import lower_process_priority

STAGE_CPUS = 0.5  # logical; a fraction, so that a small cluster never blocks itself
DECODE_SHARE = 0.001
"""Amount per actor of the custom resource that selects the nodes to decode on: it is never used up."""
MAX_RESTARTS, MAX_TASK_RETRIES = 20, 12
"""Limits per actor and per chunk: nodes may come and go, but Ray's default has no limit. A restarted actor reads in
child processes, so an image that kills its reader does so once. Ray notices the loss of a node after 15 s or more;
until then each retry fails, after 0.1 s, 0.2 s and so on, up to 5 s."""
WINDOW_CHUNKS = 4096
"""Chunks of one execution of Ray Data, which starts and ends its actors: 260,000 images at 64 images per chunk."""
PART_CHUNKS = 64
"""Chunks of one object: about a megabyte, so that a stage on another node fetches little that it does not need."""
LEASE_S = 120
"""Time that replicas keep the run's version after its last heartbeat."""
CALL_TIMEOUT_S = 600
LOAD_TIMEOUT_S = 3600.0
"""Time for every replica to load the version, which the run waits for; `load_timeout_s` is the limit of rollouts."""
GONE = (BackPressureError, ActorDiedError, ActorUnavailableError, DeploymentUnavailableError)
"""Errors after which another replica can answer: inference is idempotent."""


class ClusterHost:
    """Implements `batch.pipeline.stage.RunHost` with the cluster that this process is connected to."""

    def __init__(self, store: ModelStore) -> None:
        self._store = store

    @contextlib.contextmanager
    def leased(self, model: ModelVersion, run_id: str) -> Generator[None]:
        """Load and probe the version in every replica of its pool, and keep it while the block runs, even if another
        version is promoted.

        Replicas that start later load it with the first chunk. Raises ModelError.
        """
        pool = read_pool(self._store, model.id.name)
        replicas, version = RayReplicas(lambda _: pool, deployed_pools(), LOAD_TIMEOUT_S), model.id
        holder = f"run {run_id}"
        replicas.lease(version, holder, LEASE_S)
        try:
            with heartbeat(lambda: replicas.lease(version, holder, LEASE_S)):
                yield
        finally:
            with contextlib.suppress(ResightError):
                replicas.lease(version, holder, 0.0)

    def threads(self, spec: PassSpec) -> int:
        return (spec.actors or 1) * _threads(spec)

    def rows(self, spec: PassSpec, plan: Plan) -> Iterator[pa.Table]:
        stage, arguments, size = plan.work.stage(spec)
        pool = read_pool(self._store, plan.model.id.name) if plan.work.needs_replica else ""
        for window in plan.windows(WINDOW_CHUNKS * size):
            yield from through((stage, arguments, pool), spec, window, size)


class PoolOfReplicas:
    """Implements `batch.pipeline.stage.Answers` with the deployment handle of a pool."""

    def __init__(self, pool: str) -> None:
        self._handle = handle_of(pool)

    def answer(self, method: str, chunk: Chunk) -> Any:
        try:
            return getattr(self._handle, method).remote(chunk).result(timeout_s=CALL_TIMEOUT_S)
        except (TimeoutError, *GONE) as error:
            why = str(error) or f"no answer for {CALL_TIMEOUT_S} s"
            raise ModelNotReady(f"no replica answered: {why}"[:1000]) from error


class StageActor:
    """A callable class for `map_batches`. A chunk is a range of rows of one of `parts`, tables in the object store."""

    def __init__(
        self, stage: type[Stage], arguments: tuple[Any, ...], pool: str, parts: Sequence[ray.ObjectRef[pa.Table]]
    ) -> None:
        cv2.setNumThreads(1)
        lower_process_priority()  # like the bulk lane, so that uploads are served first
        context = ray.get_runtime_context()
        process = StageProcess(
            context.get_node_id(), bool(context.was_current_actor_reconstructed), PoolOfReplicas(pool) if pool else None
        )
        self._stage, self._parts = stage(process, *arguments), parts

    def __call__(self, chunks: pa.Table) -> pa.Table:
        return pa.concat_tables([self._rows(**chunk) for chunk in chunks.to_pylist()])

    def _rows(self, part: int, first: int, rows: int) -> pa.Table:
        return self._stage.rows(ray.get(self._parts[part]).slice(first, rows))


def through(
    made_of: tuple[type[Stage], tuple[Any, ...], str], spec: PassSpec, window: pa.Table, size: int
) -> Iterator[pa.Table]:
    """Yield what a stage returns for the window, `size` rows at a time. `made_of`: its class, arguments and pool."""
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = False
    threads = _threads(spec)
    part_rows = PART_CHUNKS * size
    parts = [ray.put(window.slice(start, part_rows)) for start in range(0, window.num_rows, part_rows)]
    chunks = list(_chunks(window.num_rows, part_rows, size))
    # from_items makes its blocks here; from_arrow would start a worker per block to look at it
    todo = ray.data.from_items(chunks, override_num_blocks=len(chunks))
    done = todo.map_batches(
        StageActor,
        fn_constructor_args=(*made_of, parts),
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=STAGE_CPUS,
        resources={spec.decode_on: DECODE_SHARE} if spec.decode_on else None,
        ray_remote_args_fn=_remote_args,
        compute=ActorPoolStrategy(
            size=spec.actors or 1,
            max_concurrent_calls_per_actor=threads,
            max_tasks_in_flight_per_actor=2 * threads,
            enable_true_multi_threading=True,
        ),
    )
    yield from done.iter_batches(batch_size=None, batch_format="pyarrow")


def _threads(spec: PassSpec) -> int:
    """Return the threads of an actor: one more than cores, as some wait for replicas."""
    return spec.threads or usable_cores() + 1


def _remote_args() -> dict[str, Any]:
    return {"scheduling_strategy": "SPREAD", "max_restarts": MAX_RESTARTS, "max_task_retries": MAX_TASK_RETRIES}


def _chunks(rows: int, part_rows: int, size: int) -> Iterator[dict[str, Any]]:
    for start in range(0, rows, size):
        part, first = divmod(start, part_rows)
        yield {"part": part, "first": first, "rows": min(size, rows - start)}
