"""The Ray Data graph of a run, as one chain, and its results as they come.

windows of the plan -> parts in the object store -> chunks (part, first row, rows) -> DetectStage actors
-> tables of result rows, in any order. Only numbers travel through Ray Data: a stage takes its rows from the
part, so that what the driver holds does not grow with the archive.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import ray
import ray.data
from ray.data import ActorPoolStrategy, DataContext

from batch.detect_stage import DetectStage
from batch.plan import Plan
from batch.spec import PassSpec, RunSpec, images_per_chunk
from model_store.machine import usable_cores

STAGE_CPUS = 0.5  # logical: a fraction, so that a small cluster never waits for itself
DECODE_SHARE = 0.001
"""Of the custom resource that names the nodes to decode on: it chooses them, and is never used up."""
MAX_RESTARTS, MAX_TASK_RETRIES = 20, 3
"""Limits of an actor and of a chunk: nodes may come and go, but Ray's default is without end. A restarted actor reads
in child processes, so an image that kills its reader does so once."""
WINDOW_CHUNKS = 4096
"""A window is one execution of Ray Data, whose actors start and end with it: at 64 images a chunk, 260,000."""
PART_CHUNKS = 64
"""Of one object: a megabyte or so, so that a stage on another node fetches no more than it needs."""


def result_tables(spec: RunSpec, plan: Plan, pool: str) -> Iterator[pa.Table]:
    """Tables with the columns of `results` and of `stages.EXTRA`. Unknown errors of a stage are raised and
    end the run.
    """
    size = images_per_chunk(spec.chunk, plan.model.config.preprocess)
    for window in plan.windows(WINDOW_CHUNKS * size):
        yield from through(DetectStage, (spec, plan.model, pool), spec, window, size)


def stage_threads(spec: PassSpec) -> int:
    return spec.threads or usable_cores() + 1


def through(
    stage: type, arguments: tuple[Any, ...], spec: PassSpec, window: pa.Table, size: int
) -> Iterator[pa.Table]:
    """What a stage makes of the window, `size` rows at a time. It is made of `arguments` and the parts."""
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
