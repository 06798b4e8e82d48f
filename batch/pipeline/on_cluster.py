"""Build the Ray Data graph of a run, as one chain, and yield its results as they arrive.

windows of the plan -> parts in the object store -> chunks (part, first row, rows) -> actors of its stage
-> tables of rows, in any order. Only numbers pass through Ray Data: a stage takes its rows from the
part, so that the memory of the driver does not grow with the archive.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import ray
import ray.data
from ray.data import ActorPoolStrategy, DataContext

from batch.planning.plan import Plan
from batch.runs.spec import PassSpec
from model_store.machine import usable_cores

STAGE_CPUS = 0.5  # logical; a fraction, so that a small cluster never blocks itself
DECODE_SHARE = 0.001
"""Amount per actor of the custom resource that selects the nodes to decode on: it is never used up."""
MAX_RESTARTS, MAX_TASK_RETRIES = 20, 3
"""Limits per actor and per chunk: nodes may come and go, but Ray's default has no limit. A restarted actor reads in
child processes, so an image that kills its reader does so once."""
WINDOW_CHUNKS = 4096
"""Chunks of one execution of Ray Data, which starts and ends its actors: 260,000 images at 64 images per chunk."""
PART_CHUNKS = 64
"""Chunks of one object: about a megabyte, so that a stage on another node fetches little that it does not need."""


def stage_rows(spec: PassSpec, plan: Plan, pool: str) -> Iterator[pa.Table]:
    """Yield what the stage of the pass returns, in any order. Raises unknown errors of the stage."""
    stage, arguments, size = plan.work.stage(spec, pool)
    for window in plan.windows(WINDOW_CHUNKS * size):
        yield from through(stage, arguments, spec, window, size)


def stage_threads(spec: PassSpec) -> int:
    return spec.threads or usable_cores() + 1


def through(
    stage: type, arguments: tuple[Any, ...], spec: PassSpec, window: pa.Table, size: int
) -> Iterator[pa.Table]:
    """Yield what a stage returns for the window, `size` rows at a time; it is made of `arguments` and the parts."""
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = False
    threads = stage_threads(spec)
    part_rows = PART_CHUNKS * size
    parts = [
        ray.put(window.slice(start, part_rows)) for start in range(0, window.num_rows, part_rows)
    ]
    chunks = list(_chunks(window.num_rows, part_rows, size))
    # from_items makes its blocks here; from_arrow would start a worker per block to look at it
    todo = ray.data.from_items(chunks, override_num_blocks=len(chunks))
    done = todo.map_batches(
        stage,
        fn_constructor_args=(*arguments, parts),
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=STAGE_CPUS,
        resources={spec.decode_on: DECODE_SHARE} if spec.decode_on else None,
        ray_remote_args_fn=_remote_args,
        compute=ActorPoolStrategy(
            size=spec.actors,
            max_concurrent_calls_per_actor=threads,
            max_tasks_in_flight_per_actor=2 * threads,
            enable_true_multi_threading=True,
        ),
    )
    yield from done.iter_batches(batch_size=None, batch_format="pyarrow")


def _remote_args() -> dict[str, Any]:
    return {
        "scheduling_strategy": "SPREAD",
        "max_restarts": MAX_RESTARTS,
        "max_task_retries": MAX_TASK_RETRIES,
    }


def _chunks(rows: int, part_rows: int, size: int) -> Iterator[dict[str, Any]]:
    for start in range(0, rows, size):
        part, first = divmod(start, part_rows)
        yield {"part": part, "first": first, "rows": min(size, rows - start)}
